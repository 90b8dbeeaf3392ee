"""Lesson 03.

`prepare` filters and tokenises the clips of a recipe; `quality` has the rules, `windows` joins
clips, `augmentation` varies them, `batches` groups them by length, `collator` makes the tensors,
`stream` prepares while training.
"""
