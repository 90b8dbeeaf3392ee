"""Training throughput on a GPU: the stock recipe's step beside ours, as models of real sizes.

Random weights and random log-mels: speed does not depend on what is said. Stock is 30 s, batches
of 32, fp16 with activation checkpointing; ours is the short context, bf16, no checkpointing, at
several batches, and with `torch.compile`. Both take whole steps, AdamW included. The ratio is the
first checkpoint's: the clips a second of ours, at its best batch, over stock's. MFU counts the
frames that were encoded, by the operations of `benchmarks.flops`.
"""

import argparse
from collections.abc import Callable

import torch
from transformers import WhisperForConditionalGeneration

from benchmarks.common import alternate, ratio, save_result, seconds_of
from benchmarks.flops import step_flops
from benchmarks.memory import CHECKPOINTS, TOKENS, shape
from utils.training.memory import release
from utils.whisper.audio_context import FRAMES_PER_SECOND, STOCK_SECONDS, audio_context

TARGET = "one H100, small at 6 s: 8 times stock and 1,400 clips/s, MFU 35 %; batch 256 in 48 GiB"
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}  # bf16 or fp16


def random_model(name: str) -> WhisperForConditionalGeneration:
    """Return a model of a checkpoint's size with random weights, to train on the device."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return WhisperForConditionalGeneration(shape(name)).train().to(device)


def stepper(
    model: WhisperForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    clips: int,
    seconds: float,
    stock: bool,
    compiled: bool,
) -> Callable[[], None]:
    """Return a function that takes one whole training step on a batch that is always the same.

    The contestants share model and optimizer: otherwise each would add to the others' memory.
    """
    device, frames = model.device, round(seconds * FRAMES_PER_SECOND)
    features = torch.randn(clips, model.config.num_mel_bins, frames, device=device)
    labels = torch.randint(1000, (clips, TOKENS), device=device)
    half = torch.float16 if stock and device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> None:
        if stock:
            model.gradient_checkpointing_enable()
        else:
            model.gradient_checkpointing_disable()
        with audio_context(model, frames), torch.autocast(device.type, half):
            loss = forward(input_features=features, labels=labels, use_cache=False).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def measure_alone(step: Callable[[], None]) -> dict[str, float | None]:
    """Return the seconds of the first step, compilation included, and the peak memory, or None."""
    if not torch.cuda.is_available():
        return {"first_seconds": seconds_of(step), "peak_gib": None}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    first = seconds_of(step)
    step()
    return {"first_seconds": first, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def measure(name: str, options: argparse.Namespace) -> tuple[list[dict], dict[str, float]]:
    """Return a row for each arm of a checkpoint, and how many times stock the best of ours is.

    Raises:
        torch.OutOfMemoryError: stock does not fit.
    """
    model = random_model(name)
    settings = {"stock": (options.stock_batch, STOCK_SECONDS, True, False)}
    for clips in options.batches:
        settings[f"ours, {clips} clips"] = (clips, options.seconds, False, False)
    for clips in options.compiled:
        settings[f"ours, {clips} clips, compiled"] = (clips, options.seconds, False, True)
    arms, alone = {}, {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    for arm, setting in settings.items():
        step = stepper(model, optimizer, *setting)
        try:
            alone[arm] = measure_alone(step)
            arms[arm] = step
        except torch.OutOfMemoryError:
            if arm == "stock":
                raise
            print(f"{arm}: out of memory", flush=True)
            optimizer.zero_grad()
    times = alternate(arms, options.rounds)

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((flops for card, flops in PEAKS.items() if card in device), None)
    rows = []
    for arm, seconds in times.items():
        clips, length, _, _ = settings[arm]
        rate = clips / sorted(seconds)[len(seconds) // 2]
        flops = step_flops(name, "full", length)
        rows.append(
            {"arm": arm, "checkpoint": name, "clips": clips, "seconds": length}
            | {"step_seconds": seconds, "clips_per_second": rate, **alone[arm]}
            | {"tflop_per_second": flops * rate / 1e12, "mfu": peak and flops * rate / peak}
        )
        print(f"{name}, {arm}: {rate:.1f} clips/s, {flops * rate / 1e12:.1f} TFLOP/s", flush=True)
    best = max(rows[1:], key=lambda row: row["clips_per_second"])["arm"]
    slow, fast = ([one / settings[arm][0] for one in times[arm]] for arm in ("stock", best))
    return rows, ratio(slow, fast)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", choices=CHECKPOINTS, nargs="+", default=["small"])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--stock-batch", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--compiled", type=int, nargs="*", default=[128], help="by torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    rows, ratios = [], []
    for name in options.checkpoints:
        try:
            found, gain = measure(name, options)
        except torch.OutOfMemoryError:
            parser.exit(1, f"{name}: stock does not fit: give a smaller --stock-batch.\n")
        rows += found
        ratios.append(gain)
        release()
    print("wrote", save_result("throughput", TARGET, ratios[0], rows))


if __name__ == "__main__":
    main()
