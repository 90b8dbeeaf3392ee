"""A Whisper checkpoint from anywhere, loaded so that it can be fine-tuned, evaluated and saved.

Checkpoints of 2022 and 2023, and those saved by other scripts, lack files and settings that later
code relies on. Whatever follows from the tokenizer is filled in; a checkpoint that cannot be used
is refused with the way out.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AddedToken,
    BitsAndBytesConfig,
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from utils.config import Recipe
from utils.embedded.fetch import resolve
from utils.whisper.faults import CheckpointError, check_files, check_weights, only_a_pickle
from utils.whisper.labels import END, is_multilingual, prefix_ids

# Whisper's own SpecAugment: a tenth of the speech in spans of 0.2 s, and two bands of 10 of 80 mel
# bands. About half of what the policy for LibriSpeech masks (Park et al. 2019, table 1), which was
# made for training from scratch.
SPEC_AUGMENT = {
    "mask_time_prob": 0.1,
    "mask_time_length": 20,
    "mask_time_min_masks": 0,
    "mask_feature_prob": 0.25,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 2,
}
START, NO_TIMES = "<|startoftranscript|>", "<|notimestamps|>"
# Of a checkpoint's generation config: what belongs to its weights.
KEPT = (
    *("suppress_tokens", "begin_suppress_tokens"),
    *("alignment_heads", "max_initial_timestamp_index"),
)
TIMESTAMPS = 1501  # <|0.00|>, <|0.02|> … <|30.00|>


def load_model(
    recipe: Recipe, quantized: BitsAndBytesConfig | None = None
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Load the recipe's checkpoint, ready to be fine-tuned, and its processor.

    Raises:
        CheckpointError: it cannot be used.
        RecipeError: it has no token for one of the recipe's languages.
    """
    name = resolve(recipe.model.checkpoint)
    model, processor = load_checkpoint(name, recipe.model.revision, quantized)
    for source in recipe.sources:
        prefix_ids(processor.tokenizer, source.language)  # now, if the checkpoint lacks one
    # Explicitly off: a checkpoint from elsewhere may have been saved with it on.
    model.config.apply_spec_augment = recipe.augmentation.spec_augment
    if recipe.augmentation.spec_augment:
        model.config.update(SPEC_AUGMENT)
    settings = model.generation_config
    if settings.is_multilingual and len(recipe.languages) == 1:
        settings.language, settings.task = recipe.languages[0], "transcribe"
    return model, processor


def load_checkpoint(
    name: str | Path, revision: str | None = None, quantized: BitsAndBytesConfig | None = None
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Load a Whisper in float32, and its processor, with everything that they lack.

    Args:
        name: a folder or a Hub id.
        revision: of the Hub id.
        quantized: how to hold the weights instead.

    Raises:
        CheckpointError: it cannot be used, or the Hub has nothing with that name.
        OSError: the Hub cannot be reached any more.
    """
    check_files(name, revision)
    try:
        model, found = WhisperForConditionalGeneration.from_pretrained(
            name,
            revision=revision,
            # Float32 whatever the file holds: an update of 4e-5 is lost in a float16 weight.
            dtype=torch.float32,
            use_safetensors=True,
            quantization_config=quantized,
            # Whatever config.json asks for: it may name a package, or a repository with code.
            attn_implementation="sdpa",
            # Both are refused below: Transformers would fill the gaps with random numbers.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except SafetensorError as error:
        raise CheckpointError(
            f"The weights of {name} are damaged ({error}): fetch them once more."
        ) from None
    except OSError as error:
        if "safetensors" in str(error):
            raise CheckpointError(only_a_pickle(name)) from None
        raise
    check_weights(model, found, name)
    # Saved twice, as by a script that set this to False, they would be trained apart.
    model.config.tie_word_embeddings = True
    model.tie_weights()
    processor = _processor(model, name, revision)
    add_timestamps(processor.tokenizer, name)
    if len(processor.tokenizer) > model.config.vocab_size:
        raise CheckpointError(
            f"The tokenizer of {name} has {len(processor.tokenizer)} tokens, its weights know "
            f"{model.config.vocab_size}: save the tokenizer that it was trained with beside it."
        )
    fill_generation_config(model, processor.tokenizer)
    return model, processor


def _processor(
    model: WhisperForConditionalGeneration, name: str | Path, revision: str | None
) -> WhisperProcessor:
    fault: Exception | None = None
    try:
        tokenizer = WhisperTokenizer.from_pretrained(name, revision=revision)
    except (OSError, TypeError, ValueError) as error:  # each for a different missing file
        tokenizer, fault = None, error
    # From a folder without its files Transformers may make a nearly empty tokenizer.
    if tokenizer is None or not {START, NO_TIMES} <= tokenizer.get_vocab().keys():
        raise CheckpointError(
            f"{name} has no tokenizer of Whisper's: save that of the checkpoint it was trained "
            "from beside it, `WhisperProcessor.from_pretrained(BASE).save_pretrained(FOLDER)`."
        ) from fault
    # Not the saved one, which may be missing, or that of a checkpoint with fewer mel bands: all of
    # Whisper's are alike but for their number.
    features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    return WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)


def add_timestamps(tokenizer: WhisperTokenizer, name: str | Path) -> None:
    """Add `<|0.00|>` … `<|30.00|>` to a tokenizer from before they belonged to it.

    Raises:
        CheckpointError: other tokens are in their place.
    """
    known = tokenizer.get_vocab()
    if "<|0.00|>" in known:
        return
    first = known[NO_TIMES] + 1
    if len(tokenizer) != first:
        taken = tokenizer.convert_ids_to_tokens(first)
        raise CheckpointError(
            f"The tokenizer of {name} has {taken} where Whisper has its timestamps: save the "
            "tokenizer of the checkpoint it was trained from beside it."
        )
    times = (f"<|{number * 0.02:.2f}|>" for number in range(TIMESTAMPS))
    tokenizer.add_tokens([AddedToken(time, normalized=False, special=False) for time in times])


def allow_no_text(model: WhisperForConditionalGeneration) -> None:
    """Let a model that is trained on non-speech return nothing where nobody speaks, in place.

    Whisper's settings forbid the end token as the first one, in every program that follows them.
    """
    settings = model.generation_config
    first = settings.begin_suppress_tokens or []
    settings.begin_suppress_tokens = [one for one in first if one != settings.eos_token_id]


def fill_generation_config(
    model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer
) -> None:
    """Set in place what decoding needs, from the tokenizer, and take over what else is `KEPT`.

    Not a language or a task, nor beams, penalties or a maximum of tokens, by which a checkpoint
    from elsewhere would be measured and deployed in another way than this project says.
    """
    ids, config = tokenizer.get_vocab(), model.config
    told = {name: getattr(model.generation_config, name, None) for name in KEPT}
    settings = GenerationConfig(**told)
    settings.is_multilingual = is_multilingual(tokenizer)
    settings.no_timestamps_token_id = ids[NO_TIMES]
    settings.prev_sot_token_id = ids["<|startofprev|>"]
    settings.decoder_start_token_id = ids[START]
    settings.eos_token_id = settings.pad_token_id = settings.bos_token_id = ids[END]
    if getattr(settings, "max_initial_timestamp_index", None) is None:
        settings.max_initial_timestamp_index = 50  # at most 1.0 s, as OpenAI decodes
    settings.max_length = config.max_target_positions
    if settings.is_multilingual:
        first, last = ids[START], ids["<|translate|>"]
        settings.lang_to_id = {
            token: number
            for token, number in ids.items()
            if first < number < last and re.fullmatch(r"<\|[a-z]{2,3}\|>", token)
        }
        settings.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    # A distilled decoder may name its teacher's heads: of layers that it lacks, or different ones.
    heads = getattr(settings, "alignment_heads", None) or []
    if any(layer >= config.decoder_layers for layer, _ in heads):
        settings.alignment_heads = None
    model.generation_config = settings
