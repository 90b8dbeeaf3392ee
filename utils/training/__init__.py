"""Lesson 4.

`run` trains a recipe and saves the weights; `trainer` is the trainer with its loss, `arguments` its
settings, `dev` the evaluation in between and which checkpoint it keeps, `progress` how far and how
fast, `checkpoints` what survives a crash, `memory` the largest batch, `adapters` LoRA, `sharding`
several cards, `stopping` what ends it early.
"""
