"""Lesson 07.

`formats` converts the model for other programs and compares them; `ggml` writes whisper.cpp's
file, `card` the model card, `hub` pushes to the Hugging Face Hub.
"""
