"""Lesson 2.

`sources` turns every source into rows of one schema, `mixing` draws from several. From the Hugging
Face Hub: `hub`, `hub_files`, `hub_columns`, `patience` (which waits for a server). From Mozilla's
archives: `common_voice`, downloaded by `data_collective`. From a folder of your own: `recordings`,
whose layouts are in `files`, `folders`, `tables`, `delimited`, `columns`, `times`, `layouts`,
`label_studio`, `pairs` and `parts`, and what is none of them in `unread`; annotations of long
recordings in `annotations`, `subtitles`, `program_json` and `cues`, a transcript without times in
`align` and `pauses`. `splits` holds out what is missing; `pseudo_labels` lets a model transcribe
what has no text. Sound of any format is decoded by `sound`, with `decoders` and `headers`.
"""
