"""Under which names does a study keep what Optuna has no place for?"""

from __future__ import annotations

# User attribute of a finished trial: what its states and values cannot hold (fate, epochs, times, cause of failure).
OUTCOME = "outcome"

# User attribute of a trial that was proposed but never run, and why: the parameters had been run already, or the
# driver died before they were complete.
NOT_RUN = "not_run"

# User attribute of a trial: what its network costs, by name.
OBJECTIVES = "objectives"

# User attribute of a trial that took over another's weights: which, in whose place, and after which epoch.
LINEAGE = "lineage"

# User attribute of a trial that lost its worker and went on: how often, and for which reasons.
RESTARTS = "restarts"

# User attribute of the study: seconds that the search has taken, over all its sessions.
ELAPSED_S = "elapsed_s"

# User attribute of a trial of an earlier run, from which this one started: which run and trial, and whether it is to be
# run here too. It is none of this run's trials.
EARLIER = "earlier"

# User attribute of a starting point that waits to be proposed: its place among them.
STARTING_POINT = "starting_point"

# User attribute of the study: that all it starts from is in it.
BEGUN = "begun"
