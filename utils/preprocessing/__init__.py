"""Lesson 3.

`prepare` filters and tokenises the clips of a recipe, each as in `examples`, `parallel` on all
cores; `transcript` has the rules for texts, `quality` those for clips, `windows` joins clips,
`augmentation` varies them, `batches` groups them by length, `collator` makes the tensors, `stream`
prepares while training, in the workers of `stream_loader`.
"""
