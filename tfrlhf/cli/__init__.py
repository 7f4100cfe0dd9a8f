"""What every recipe shares: settings, the run's directory, its stages.

Imports nothing heavy, so that `--help` answers at once.
"""

from tfrlhf.cli.learning import cosine
from tfrlhf.cli.learning import embedded_policy
from tfrlhf.cli.learning import fine_tune
from tfrlhf.cli.learning import learn_reward
from tfrlhf.cli.learning import repeated
from tfrlhf.cli.learning import start_policy
from tfrlhf.cli.run import Run
from tfrlhf.cli.run import RunSettings
from tfrlhf.cli.run import SamplingSettings
from tfrlhf.cli.run import UserError
from tfrlhf.cli.run import peak_memory_mb
from tfrlhf.cli.run import writing
from tfrlhf.cli.start import check_files
from tfrlhf.cli.start import keep_compiled
from tfrlhf.cli.start import load_function
from tfrlhf.cli.start import main
from tfrlhf.cli.start import make_strategy
from tfrlhf.cli.tables import console
from tfrlhf.cli.tables import print_comparison
from tfrlhf.cli.tables import print_samples
from tfrlhf.cli.tables import print_table
from tfrlhf.cli.tables import print_where

__all__ = [
    "Run",
    "RunSettings",
    "SamplingSettings",
    "UserError",
    "check_files",
    "console",
    "cosine",
    "embedded_policy",
    "fine_tune",
    "keep_compiled",
    "learn_reward",
    "load_function",
    "main",
    "make_strategy",
    "peak_memory_mb",
    "print_comparison",
    "print_samples",
    "print_table",
    "print_where",
    "repeated",
    "start_policy",
    "writing",
]
