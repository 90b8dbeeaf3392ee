"""Lesson 04.

`run` trains a recipe and saves the weights; `trainer` is the trainer, `loss` what it minimises,
`arguments` its settings, `dev` the evaluation in between, `progress` the metrics file,
`checkpoints` what survives a crash, `selection` which checkpoint is kept, `memory` the largest
batch, `adapters` LoRA, `sharding` several cards, `averaging` means of weights, `pace` clips a
second, `stopping` when it ends.
"""
