"""What the lessons use: one folder for each lesson, and what several of them need."""

import logging

# peft imports it where it is installed; on recent CPUs it then asks for a package of the Hub's.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
