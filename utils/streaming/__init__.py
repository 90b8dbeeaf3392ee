"""Lesson 02.

`sources` turns every source into rows of one schema and mixes them. `hub` streams from the Hugging
Face Hub: `hub_files` finds and fetches files, `patience` retries. `common_voice` reads Mozilla's
archives, `recordings` a folder of your own.
"""
