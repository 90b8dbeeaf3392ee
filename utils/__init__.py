"""What the lessons share: one module a lesson, plus what several lessons need."""

import logging

# peft imports it where it is installed; on recent CPUs it then asks for a package of the Hub's.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
