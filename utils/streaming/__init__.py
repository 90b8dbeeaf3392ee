"""Lesson 02.

`sources` turns every source into rows of one schema and mixes them. `hub` reads the Hugging Face
Hub: `hub_files` finds and fetches its files, `patience` waits for it. `common_voice` reads
Mozilla's archives, `recordings` a folder of your own.
"""
