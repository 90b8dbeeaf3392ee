"""Lesson 06.

`serve` starts the page; `page` builds it, `live` transcribes while somebody speaks, `kept` stores
recordings with corrected texts.
"""
