"""Checkpoints as they were saved in 2022 and 2023, and by other scripts than ours."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperProcessor

from tests.conftest import make_tiny_model
from utils.config import RecipeError, load_recipe
from utils.whisper.load import CheckpointError, load_checkpoint, load_model
from utils.whisper.long_recordings import transcribe_long


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A whole checkpoint with the files of 2022 (vocab.json, merges.txt) beside those of today."""
    folder = tmp_path_factory.mktemp("whole")
    model = make_tiny_model(base[0].config)
    model.generation_config = base[0].generation_config
    model.save_pretrained(folder)
    base[1].save_pretrained(folder)
    base[1].feature_extractor.save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(whole, tmp_path):
    """Return a function: a copy of the checkpoint without some files, with keys of others."""

    def make(*without, **changed):
        folder = tmp_path / "checkpoint"
        shutil.copytree(whole, folder)
        for pattern in without:
            for path in folder.glob(pattern):
                path.unlink()
        for name, keys in changed.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | keys))
        return folder

    return make


def old_tokenizer(folder, base):
    """Replace the tokenizer's files by those of late 2022, which ended at <|notimestamps|>."""
    tokenizer = base[1].tokenizer
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        path.unlink()
    tokenizer.save_vocabulary(str(folder))
    last = tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    added = {name: n for name, n in tokenizer.get_added_vocab().items() if n <= last}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    special = [name for name in added if name != "<|endoftext|>"]
    kinds = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    kinds["additional_special_tokens"] = special
    (folder / "special_tokens_map.json").write_text(json.dumps(kinds))
    settings = kinds | {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


FACTS = ("is_multilingual", "lang_to_id", "task_to_id", "no_timestamps_token_id")
OUTDATED = {"is_multilingual": None, "lang_to_id": None, "no_timestamps_token_id": 50362}
OF_2022 = {"forced_decoder_ids": [[1, 50274], [2, 50359]], "suppress_tokens": [1, 2]}


@pytest.mark.parametrize(
    ("without", "changed"),
    [
        ((), {}),
        (("generation_config.json",), {}),
        (("generation_config.json",), {"config": OF_2022}),
        ((), {"generation_config": OUTDATED | {"forced_decoder_ids": [[1, 50274]]}}),
        (("preprocessor_config.json", "processor_config.json"), {}),
        ((), {"config": {"apply_spec_augment": True}}),
    ],
)
def test_what_a_checkpoint_lacks_is_filled_in_and_saved(
    base, checkpoint, tmp_path, without, changed
):
    model, processor = load_checkpoint(checkpoint(*without, **changed))
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    for one in (model, load_checkpoint(tmp_path / "again")[0]):
        for fact in FACTS:
            assert getattr(one.generation_config, fact) == getattr(base[0].generation_config, fact)
        assert getattr(one.generation_config, "forced_decoder_ids", None) is None
        # Stock generate takes language and task, which of an outdated config it refuses.
        features = torch.zeros(1, 80, 3000)
        one.generate(features, language="it", task="transcribe", max_new_tokens=2)


def test_how_others_decode_is_not_carried_on(base, checkpoint):
    searched = {"num_beams": 5, "no_repeat_ngram_size": 3, "max_new_tokens": 9}
    asked = {"language": "<|hi|>", "task": "translate", "return_timestamps": True}
    changed = searched | asked | {"suppress_tokens": None}
    model, _ = load_checkpoint(checkpoint(generation_config=changed))
    settings, stock = model.generation_config, base[0].generation_config
    assert settings.suppress_tokens is None
    assert all(getattr(settings, name) == getattr(stock, name) for name in searched)
    assert all(getattr(settings, name, None) is None for name in asked)


def test_a_language_that_a_checkpoint_lacks_is_refused_when_it_is_loaded():
    recipe = load_recipe("recipes/smoke.toml")
    source = dataclasses.replace(recipe.sources[0], language="yue")
    with pytest.raises(RecipeError, match=r'<\|yue\|>.*language = "zh" and speaks = "Cantonese"'):
        load_model(dataclasses.replace(recipe, sources=(source,)))


def test_a_tokenizer_from_before_the_timestamps_gets_them_where_whisper_has_them(base, checkpoint):
    folder = checkpoint()
    old_tokenizer(folder, base)
    before = WhisperProcessor.from_pretrained(folder).tokenizer
    assert "<|0.00|>" not in before.get_vocab(), "the files are not those of 2022"
    _, processor = load_checkpoint(folder)
    for time in ("<|0.00|>", "<|30.00|>"):
        expected = base[1].tokenizer.convert_tokens_to_ids(time)
        assert processor.tokenizer.convert_tokens_to_ids(time) == expected


def test_heads_of_a_deeper_teacher_are_left_out(checkpoint):
    folder = checkpoint(generation_config={"alignment_heads": [[0, 1], [3, 1], [5, 6]]})
    model, processor = load_checkpoint(folder)
    assert model.generation_config.alignment_heads is None
    samples = torch.randn(16_000).numpy() * 0.1
    list(transcribe_long(model, processor, samples, language="it"))


def test_mel_bands_are_those_of_the_weights_whatever_lies_beside_them(whole, checkpoint):
    folder = checkpoint()
    for path in folder.glob("*process*.json"):
        path.write_text(path.read_text().replace('"feature_size": 80', '"feature_size": 128'))
    assert WhisperProcessor.from_pretrained(folder).feature_extractor.feature_size == 128
    (mine, theirs) = (load_checkpoint(one)[1].feature_extractor for one in (folder, whole))
    assert mine.feature_size == 80 and (mine.mel_filters == theirs.mel_filters).all()


def test_the_code_that_a_checkpoint_asks_for_is_not_looked_for(checkpoint):
    model, _ = load_checkpoint(checkpoint(config={"attn_implementation": "someone/kernel"}))
    assert model.config._attn_implementation == "sdpa"


def test_positions_that_were_not_saved_are_computed(whole, checkpoint):
    folder, name = checkpoint(), "model.encoder.embed_positions.weight"
    changed_weights(lambda weights: {n: w for n, w in weights.items() if n != name})(folder)
    mine, theirs = (load_checkpoint(one)[0].get_parameter(name) for one in (folder, whole))
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_an_output_layer_that_was_saved_twice_is_one_again(base, checkpoint, tmp_path):
    folder = checkpoint(config={"tie_word_embeddings": False})
    twice = changed_weights(lambda weights: weights | {"proj_out.weight": weights[SHARED].clone()})
    twice(folder)
    load_checkpoint(folder)[0].save_pretrained(tmp_path / "again")
    base[1].save_pretrained(tmp_path / "again")
    for model in (load_checkpoint(one)[0] for one in (folder, tmp_path / "again")):
        assert model.proj_out.weight is model.get_input_embeddings().weight
    assert "proj_out.weight" not in load_file(tmp_path / "again/model.safetensors")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def converted(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.bin").touch()
    (folder / "vocabulary.json").touch()


def run_folder(folder):
    inside = folder / "model"
    inside.mkdir()
    for path in folder.glob("*.json"):
        path.rename(inside / path.name)


def adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def leftover(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')


def converted_on_the_hub(folder):
    (folder / "config.json").write_text('{"alignment_heads": [], "suppress_ids": []}')


def quantized(folder):
    path = folder / "config.json"
    how = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": how}))


def other_model(folder):
    (folder / "config.json").write_text('{"model_type": "wav2vec2"}')


def no_tokenizer(folder):
    for path in folder.glob("*tok*"):
        path.unlink()
    for name in ("vocab.json", "merges.txt", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)


def more_tokens(folder):
    processor = WhisperProcessor.from_pretrained(folder)
    processor.tokenizer.add_tokens(["<mine>", "<yours>"])
    processor.save_pretrained(folder)


def changed_weights(change):
    def spoil(folder):
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    return spoil


def half(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 290403936\n"
    (folder / "model.safetensors").write_text(text)


def one_part(folder):
    path = folder / "model.safetensors"
    parts = {"model.encoder.conv1.weight": "model-00001-of-00002.safetensors"}
    path.rename(folder / "model-00002-of-00002.safetensors")
    (folder / f"{path.name}.index.json").write_text(json.dumps({"weight_map": parts}))


def other_config(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"d_model": 2 * config["d_model"]}))


FIRST = "model.encoder.conv1.weight"
SHARED = "model.decoder.embed_tokens.weight"
wrapped = changed_weights(lambda weights: {f"_orig_mod.{name}": w for name, w in weights.items()})
unmerged = changed_weights(
    lambda weights: {name.replace("q_proj", "q_proj.base_layer"): w for name, w in weights.items()}
)
fewer = changed_weights(lambda weights: {n: w for n, w in weights.items() if n != FIRST})
apart = changed_weights(lambda weights: weights | {"proj_out.weight": weights[SHARED] * 2})
all_diverged = changed_weights(lambda weights: {n: w * float("nan") for n, w in weights.items()})
diverged = changed_weights(lambda weights: weights | {FIRST: weights[FIRST] * float("nan")})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wrapped, r'called "_orig_mod\.…".*removeprefix'),
        (unmerged, r"has others, such as .*base_layer.*merge_and_unload"),
        (fewer, rf'lacks 1 weights .* such as "{FIRST}": save it whole'),
        (apart, "output layer apart from its embedding"),
        (diverged, "no numbers.*diverged"),
        (all_diverged, "no numbers.*diverged"),
        (half, "damaged .*fetch them once more"),
        (pointer, "pointer of git-lfs.*git lfs pull"),
        (one_part, r"lacks model-00001-of-00002\.safetensors"),
        (other_config, r"config\.json of .* is not that of its weights"),
        (pickled, r"pickle.*use_safetensors=False.*save_pretrained"),
        (converted, "CTranslate2 model.*give the Transformers checkpoint"),
        (run_folder, r"no config\.json: give .*/model\."),
        (adapter, "adapter.*merge_and_unload"),
        (leftover, "merged, delete adapter_config.json"),
        (converted_on_the_hub, "CTranslate2 model"),
        (quantized, "quantised weights.*made from"),
        (other_model, '"wav2vec2" and no Whisper'),
        (no_tokenizer, r"no tokenizer of Whisper.*WhisperProcessor\.from_pretrained"),
        (more_tokens, r"51867 tokens, its weights know 51865"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence_with_the_way_out(checkpoint, spoil, said):
    folder = checkpoint()
    spoil(folder)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(folder)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "ggml-base.bin").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        load_checkpoint(tmp_path / "ggml-base.bin")
