"""The model itself.

`decoding` transcribes clips, `hypotheses` keeps what an unmodified checkpoint transcribes; `load`
loads a checkpoint, `faults` says what is wrong with one, `labels` has the tokens around a text,
`features` the log-mel spectrogram, `audio_context` the short window, `greedy` the loop over tokens,
`weight_layout` how weights lie in memory on a CPU, `long_recordings` what is longer than a window,
`captions` its SRT and VTT, `word_times` when each word is said.
"""
