"""Lesson 5.

`evaluate` evaluates two models on a recipe's test clips; `readers` transcribes them, `report`
counts, `differences` separates digits, spelling and words, `page` writes the HTML, `mistakes`
shows word diffs, `long_form` measures long recordings, `probes` hallucinations on noise,
`plotting` draws the figures. `learning_curve` trains with more and more speech, `curve_points`
says with which.
"""
