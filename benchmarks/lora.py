"""LoRA at several learning rates beside full training, each with several seeds.

As `benchmarks.seeds`, with full training at the recipe's rate as the first arm. The ratio is that
of the first source's word errors before training over those after full training.
"""

from dataclasses import replace

from benchmarks.seeds import compare_arms, seeds_parser
from utils.config import load_recipe

TARGET = "LoRA at its best rate within 2 points of full training, on the voice trained on"


def main() -> None:
    """Compare the rates."""
    parser = seeds_parser(__doc__, "runs/lora")
    parser.set_defaults(seeds=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 4e-4, 1e-3])
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    arms = {"full": recipe}
    for rate in options.rates:
        arms[f"lora {rate:g}"] = replace(
            recipe,
            method=replace(recipe.method, weights="lora"),
            training={**recipe.training, "learning_rate": rate},
        )
    compare_arms("lora", TARGET, arms, options)


if __name__ == "__main__":
    main()
