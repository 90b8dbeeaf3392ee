"""Lesson 02.

`sources` turns every source into rows of one schema and mixes them; `hub` reads the Hugging Face
Hub, `common_voice` Mozilla's archives, `recordings` a folder of your own.
"""
