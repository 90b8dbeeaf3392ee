"""Lesson 01.

`machine` says what this computer offers and in which precision it trains; `colab` knows Colab's
disk and Drive, `estimates` the cost of a training, `panel` writes a recipe from it, `presets` has
the learning rates by model size.
"""
