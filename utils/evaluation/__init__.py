"""Lesson 05.

`evaluate` compares two models on a recipe's test clips; `readers` transcribes them, `report`
counts, `page` writes the HTML, `mistakes` shows word diffs, `long_form` measures long recordings,
`probes` hallucination on noise, `plotting` the figures.
"""
