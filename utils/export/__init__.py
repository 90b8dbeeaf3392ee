"""Lesson 7.

`formats` converts the model for other programs, `ggml` writes whisper.cpp's file; `programs` runs
them, `documented` has the one call of each that handbook, card and Space show, and `measure`
measures it. `card` writes the model card, `privacy` keeps paths and names out of what is
published, `space` stages the page, `hub` the model, and pushes to the Hugging Face Hub.
"""
