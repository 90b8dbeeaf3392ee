"""Lesson 6.

`serve` starts the page; `page` builds it, `shown` has what it displays, `answers` what its
buttons do, `live` transcribes while somebody speaks, `kept` stores recordings with corrected
texts, `guard` refuses what no visitor sends.
"""
