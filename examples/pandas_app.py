"""A pandas frame, loaded once and grouped from every core:
`curl 'localhost:8080/group/carrier?of=delay&how=mean&month=7'`.

python examples/pandas_app.py [FILE.csv]

Without a file it makes a million flights up. Queries only read the frame, so contexts share it:
forked ones the memory, threads the object itself.
"""

import sys

import numpy as np
import pandas as pd
import parallel
from parallel.http.server import HttpServer, json_serialization, route

MEASURES = {"count", "max", "mean", "median", "min", "std", "sum"}


def made_up(rows=1_000_000, seed=1):
    """Flights of a year: carrier, month, distance in kilometres, delay in minutes."""
    rng = np.random.default_rng(seed)
    distance = rng.gamma(2.0, 600.0, rows).astype(np.int32) + 80
    return pd.DataFrame(
        {
            "carrier": pd.Categorical.from_codes(rng.integers(0, 6, rows), list("ABCDEF")),
            "month": rng.integers(1, 13, rows, dtype=np.int8),
            "distance": distance,
            "delay": np.round(rng.normal(9.0, 30.0, rows) + distance / 500, 1),
        }
    )


frame = pd.read_csv(sys.argv[1]) if len(sys.argv) > 1 else made_up()


class Flights(HttpServer):
    @route("/")
    def main(self, request):
        """What can be asked for."""
        columns = {name: str(kind) for name, kind in frame.dtypes.items()}
        asked = "/group/<column>?of=<column>&how=<measure>[&<column>=<value>...]"
        return json_serialization(
            request,
            {"rows": len(frame), "columns": columns, "ask": asked, "measures": sorted(MEASURES)},
        )

    @route
    def group(self, request, by=None, of=None, how="mean", **where):
        """A measure of a column for each value of another one."""
        numbers = set(frame.select_dtypes("number").columns)
        unknown = {by, *where} - set(frame.columns)
        if unknown:
            return self.error(request, 400, f"no such column: {', '.join(map(str, unknown))}")
        if of not in numbers or how not in MEASURES:
            return self.error(
                request, 400, f"of: one of {sorted(numbers)}; how: {sorted(MEASURES)}"
            )
        chosen = frame
        for column, text in where.items():
            chosen = chosen[chosen[column].astype(str) == text]
        found = chosen.groupby(by, observed=True)[of].agg(how)
        found = found.astype(object).where(found.notna(), None)  # JSON knows no NaN.
        return json_serialization(request, {str(key): value for key, value in found.items()})


server = parallel.server("127.0.0.1", 8080)
parallel.register(transport=server, protocol=Flights)
parallel.run()
