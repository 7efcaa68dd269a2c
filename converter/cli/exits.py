"""Exit codes of every verb."""

EXIT_FINE = 0
EXIT_FINDINGS = 1
"""A check found something of severity error."""
EXIT_USAGE = 2
EXIT_ERROR = 3
"""The input or the environment is at fault; one line on standard error says how."""
EXIT_INTERRUPTED = 130
