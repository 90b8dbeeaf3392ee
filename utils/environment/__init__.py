"""Lesson 01.

`machine` says what this computer offers and in which precision it trains; `packages` compares what
is installed with requirements.txt, for the set-up cell and the lesson alike; `gpu` stops where a
GPU is there and cannot be used, and `driver` knows which PyTorch fits it, also for `make`; `colab`
knows Colab's disk and Drive, and Kaggle; `estimates` the cost of a training, `panel` writes a
recipe from it, `presets` has the learning rates by model size.
"""
