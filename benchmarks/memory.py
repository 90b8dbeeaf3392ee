"""How much memory training takes, by checkpoint, method and length; what fits which card.

No card is needed: the real training forward runs on tensors without contents, and every tensor that
autograd keeps for the backward pass is counted by its bytes. To them come the weights, their
gradients and AdamW's two means. What only exists for a moment is not counted: RESERVE is for that.
On a GPU that is large enough, each of them is also trained, and its peak stands beside the sum.
"""

import argparse
import functools

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import WhisperConfig, WhisperForConditionalGeneration

from benchmarks.common import RESULTS, save_result
from utils.artifacts import write_atomically
from utils.config import Method
from utils.training.adapters import choose_weights
from utils.training.memory import ADAM_BYTES, release
from utils.whisper.audio_context import FRAMES_PER_SECOND, audio_context

TARGET = "the recommended configurations, computed; within 20 % of what a GPU shows"
# Width, layers of encoder and decoder, heads, mel bands, vocabulary: OpenAI's model cards.
CHECKPOINTS = {
    "tiny": (384, 4, 4, 6, 80, 51865),
    "base": (512, 6, 6, 8, 80, 51865),
    "small": (768, 12, 12, 12, 80, 51865),
    "medium": (1024, 24, 24, 16, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866),
    "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
}
# GiB that PyTorch finds, less about 0.6 for the CUDA context (not measured here).
CARDS = {"T4 16 GB": 14.0, "V100 16 GB": 15.1, "L4 24 GB": 21.5, "A100 40 GB": 38.8}
CARDS |= {"A100 80 GB": 78.5, "H100 80 GB": 78.5}
RESERVE = 0.10  # of the card: temporaries and what the allocator cannot use
SECONDS = (5.0, 30.0)  # a Common Voice clip, and Whisper's window
TOKENS = 40  # labels of such a clip
MEASURED_CLIPS = 16  # of the batch that a GPU trains on
# What is trained, and among how many cards weights, gradients and optimizer are divided.
METHODS = {
    "full": ("full", 1),
    "full, divided among 2": ("full", 2),
    "frozen_encoder": ("frozen_encoder", 1),
    "lora": ("lora", 1),
}


def kept_bytes(model: torch.nn.Module, clips: int, seconds: float, mels: int) -> int:
    """Return the bytes that a training forward leaves for the backward pass, weights left out."""
    ours = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in ours:
            kept[storage._cdata] = storage  # held, so that no other gets the same number
        return tensor

    frames = round(seconds * FRAMES_PER_SECOND)
    whisper = getattr(model, "base_model", model)
    whisper = getattr(whisper, "model", whisper) if hasattr(model, "peft_config") else model
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
        audio_context(whisper, frames),
    ):
        loss = model(
            input_features=torch.empty(clips, mels, frames),
            labels=torch.zeros(clips, TOKENS, dtype=torch.long),
        ).loss
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def to_fake(model: torch.nn.Module) -> None:
    """Replace weights without a place by ones that seem to lie on a CPU; call it in the mode."""
    fakes: dict[int, torch.nn.Parameter] = {}  # a weight that two layers share stays one
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.nn.Parameter(torch.empty(weight.shape), weight.requires_grad)
                module._parameters[name] = fakes.setdefault(id(weight), fake)


def shape(name: str) -> WhisperConfig:
    """Return a checkpoint's sizes."""
    width, encoder, decoder, heads, mels, vocabulary = CHECKPOINTS[name]
    return WhisperConfig(
        d_model=width,
        encoder_layers=encoder,
        decoder_layers=decoder,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=mels,
        vocab_size=vocabulary,
        use_cache=False,
    )


def empty_model(name: str, weights: str) -> torch.nn.Module:
    """Return a checkpoint's model to train, its weights without contents and without a place."""
    with torch.device("meta"):
        # Not .train(): Transformers 5.17 then looks at a random number, which no tensor without
        # contents has. What is computed is the same, for Whisper's dropout is 0.
        model = WhisperForConditionalGeneration(shape(name)).eval()
        return choose_weights(model, Method(weights=weights))


@functools.cache  # the same for every number of cards, and slow to count
def count(name: str, weights: str, seconds: float) -> tuple[list[tuple[int, bool]], int, int]:
    """Return each weight's size and whether it is trained, and `kept_bytes` of 1 and 2 clips."""
    model = empty_model(name, weights)
    with FakeTensorMode():
        to_fake(model)
        sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
        one, two = (kept_bytes(model, clips, seconds, CHECKPOINTS[name][4]) for clips in (1, 2))
    return sizes, one, two


def memory_of(name: str, weights: str, cards: int, seconds: float) -> dict[str, float]:
    """Return the fixed bytes of a training on each card and those that a clip of its batch adds."""
    sizes, one, two = count(name, weights, seconds)
    parameters = sum(size for size, _ in sizes)
    trained = sum(size for size, is_trained in sizes if is_trained)
    # Weight and gradient in float32, and the optimizer.
    fixed = (4 * parameters + (4 + ADAM_BYTES) * trained) / cards
    if cards == 1:
        # What one() holds whatever the batch is: the weights in bf16, which autocast keeps. Divided
        # ones are gathered in bf16, layer by layer (utils/training/sharding.py).
        fixed += 2 * one - two
    return {"parameters": parameters, "trained": trained, "fixed": fixed, "clip": two - one}


def largest_batch(memory: dict[str, float], card: float) -> int:
    """Return how many clips fit a card of so many GiB; 0 if not one does."""
    room = card * (1 - RESERVE) * 2**30 - memory["fixed"]
    return max(int(room // memory["clip"]), 0)


def peak_gib(name: str, weights: str, seconds: float) -> float | None:
    """Return the most GiB that training steps of 16 clips take on the GPU, if they fit it."""
    with torch.device("cuda"):
        model = WhisperForConditionalGeneration(shape(name)).train()
        features = torch.randn(
            MEASURED_CLIPS, model.config.num_mel_bins, round(seconds * FRAMES_PER_SECOND)
        )
        labels = torch.randint(1000, (MEASURED_CLIPS, TOKENS))
    model = choose_weights(model, Method(weights=weights))
    whisper = model.base_model.model if hasattr(model, "peft_config") else model
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    release()
    torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(2):  # the optimizer's means are there from the second on
            with torch.autocast("cuda", torch.bfloat16), audio_context(whisper, features.shape[-1]):
                loss = model(input_features=features, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def measured(name: str, method: str, seconds: float, computed: float) -> dict[str, float] | None:
    """Return the peak of a training on this GPU and its ratio to what is computed, or None."""
    weights, cards = METHODS[method]
    if not torch.cuda.is_available() or cards > 1:
        return None
    gib = peak_gib(name, weights, seconds)
    release()
    found = gib and {"clips": MEASURED_CLIPS, "gib": gib, "over_computed": gib / computed}
    print(f"{name}, {method}, {seconds:g} s: {computed:.2f} GiB computed, {found}", flush=True)
    return found


def table(rows: list[dict], method: str) -> str:
    """Return one method's largest batches as Markdown."""
    heads = " | ".join(CARDS)
    lines = [f"| {method} | fixed GiB | MiB a clip | {heads} |", "|---|---:|---:|" + "---:|" * 6]
    for name in CHECKPOINTS:
        short, long = (row for row in rows if (row["checkpoint"], row["method"]) == (name, method))
        cells = (f"{short['clips'][card]} / {long['clips'][card]}" for card in CARDS)
        lines.append(
            f"| {name} | {short['fixed_gib']:.1f} | {short['clip_mib']:.0f} / "
            f"{long['clip_mib']:.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compute, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    for name in CHECKPOINTS:
        for method, (weights, cards) in METHODS.items():
            for seconds in SECONDS:
                memory = memory_of(name, weights, cards, seconds)
                rows.append(
                    {"checkpoint": name, "method": method, "seconds": seconds}
                    | {"fixed_gib": memory["fixed"] / 2**30, "clip_mib": memory["clip"] / 2**20}
                    | {"parameters": memory["parameters"], "trained": memory["trained"]}
                    | {"clips": {card: largest_batch(memory, gib) for card, gib in CARDS.items()}}
                )
                computed = (memory["fixed"] + MEASURED_CLIPS * memory["clip"]) / 2**30
                rows[-1]["measured"] = measured(name, method, seconds, computed)
    small = {row["seconds"]: row for row in rows if row["checkpoint"] == "small"}
    gain = small[30.0]["clip_mib"] / small[5.0]["clip_mib"]
    text = "\n\n".join(table(rows, method) for method in METHODS)
    write_atomically(RESULTS / "memory.md", text + "\n")
    ratios = dict.fromkeys(("median", "low", "high"), gain)
    on_cpu = not torch.cuda.is_available()
    print("wrote", save_result("memory", TARGET, ratios, rows, on_cpu=on_cpu))


if __name__ == "__main__":
    main()
