"""Lesson 05.

`evaluate` reads a recipe's test clips with two models; `readers` transcribes them, `report`
counts, `page` writes the HTML, `mistakes` shows word diffs, `long_form` measures long recordings,
`probes` hallucination on noise, `plotting` the figures.
"""
