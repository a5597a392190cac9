"""`sweeper doctor`: do the catalog, the search's history, MLflow and the files tell the same story of a study?

To look changes nothing and takes no lease. To mend does: the catalog is believed, and what says otherwise is written
anew from it; files that nobody needs go.
"""

from __future__ import annotations

from sweeper.doctor.examine import doctor

__all__ = ["doctor"]
