"""What does augmentation buy? Speed, noise, SpecAugment and the telephone, each with several seeds.

As `benchmarks.seeds`, with one kind of augmentation an arm, the first without any: at 30 s and in
the short window, each source apart, the difference from the first arm with its interval. The ratio
is that of the first source's word errors before training over those after it without augmentation.
"""

from dataclasses import replace

from benchmarks.seeds import compare_arms, seeds_parser
from utils.config import Augmentation, load_recipe

TARGET = "one kind lowers the held-out speaker's WER and none raises that of the trained one"
KINDS = {
    "none": Augmentation(),
    "speed": Augmentation(speed=0.1),
    "noise": Augmentation(noise=0.5),
    "spec_augment": Augmentation(spec_augment=True),
    "telephone": Augmentation(telephone=0.3),
}


def main() -> None:
    """Compare the kinds."""
    parser = seeds_parser(__doc__, "runs/augmentation")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    arms = {kind: replace(recipe, augmentation=KINDS[kind]) for kind in options.kinds}
    compare_arms("augmentation", TARGET, arms, options)


if __name__ == "__main__":
    main()
