"""Lesson 1, and the ground that all others stand on.

`machine` says what this computer offers and in which precision it trains, `gpu` and `driver`
whether PyTorch can use its card, `packages` which versions are needed, `colab` knows Colab's disk
and Drive. `estimate` computes what a training costs, `panel` writes a recipe from it.
`recipe_file` reads a recipe, `recipe_keys`, `recipe_checks` and `training_table` check it; the last
has its defaults, such as the learning rate for a model's size. `command` is what every command line
shares, `whole` tells whether files are complete, `lock` lets one process at a time write to a run
folder, `templates` fills pages in, `diagrams` draws the lessons' boxes, `slider` shows what changes
with a value.
"""
