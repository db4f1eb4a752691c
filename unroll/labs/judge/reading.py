"""The loop over the rows: which rows and states each call of a cell was given, and what is wrong with them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from unroll.labs.judge.classifier_codes import fault
from unroll.labs.problems import Problem


class Reading:
    """The loop over the rows: which rows and states each call of the cell was given.

    Attributes:
        readable: rows and states of every call are known.
        returned: what every call returned was seen.
        right: every row in order, from zeros (or a learned start), each state handed on.
        plain: one cell that is called once a row, as in the lab.
    """

    def __init__(self, observed: dict[str, Any]) -> None:
        self.observed, self.calls = observed, observed["calls"]
        self.B, self.T = observed["B"], observed["T"]
        self.positions: list[list[list[int]] | None] = []
        self.upper: list[bool] = []
        for call in self.calls:
            above = call["x_from"] is not None and call["rows"] is None
            self.upper.append(above)
            self.positions.append(self.positions[call["x_from"][0]] if above else call["rows"])
        self.groups: dict[int, list[int]] = {}
        for n, call in enumerate(self.calls):
            self.groups.setdefault(call["cell"], []).append(n)
        self.plain = len(self.groups) == 1
        self.chains = [chain for group in self.groups.values() for chain in self._chains(group)]
        self.returned = all(call["outs"] for call in self.calls)
        self.readable = (
            self.returned
            and all(rows is not None for rows in self.positions)
            and all(
                self._source(state) is not None
                or state["zero"]
                or state["learned"]
                or n in self._firsts()
                or state["first"]
                for n, call in enumerate(self.calls)
                for state in call["states"]
            )
        )
        self.right = self._right()

    def _firsts(self) -> set[int]:
        return {group[0] for group in self.groups.values()}

    def _source(self, state: dict[str, Any]) -> list[int] | None:
        """The call and output that a state comes from."""
        if state["from"] is not None:
            return list(state["from"])
        calls = {m for m, _ in state["uses"]}
        return list(state["uses"][0]) if len(calls) == 1 and len(state["uses"]) == 1 else None

    def slots(self, call: dict[str, Any]) -> list[str]:
        """h or c for each state that a call was given, by the argument's name, else by its place."""
        states = call["states"]
        if len(states) != 2:
            return ["state"] * len(states)
        names = [letter(state["name"]) for state in states]
        return names if sorted(names) == ["c", "h"] else ["h", "c"]

    def _wanted(self, call: dict[str, Any], k: int) -> set[int]:
        """Outputs of the step before that may stand in the k-th place of the state."""
        if len(call["states"]) != 2 or call["outs"] != 2:
            return set(range(max(call["outs"], 1)))
        wanted = {("h", "c").index(self.slots(call)[k])}
        inward, outward = self.observed["semantic"]
        if inward is not None and outward is not None:  # a cell that returns c first may be called accordingly
            wanted.add(outward if k == inward else 1 - outward)
        return wanted

    def _chains(self, group: list[int]) -> list[list[int]]:
        """Calls joined by the states that are handed on."""
        chains: list[list[int]] = []
        for n in group:
            sources = [self._source(state) for state in self.calls[n]["states"]]
            before = {source[0] for source in sources if source is not None}
            whole = len(before) == 1 and None not in sources
            good = whole and all(
                source is not None and source[1] in self._wanted(self.calls[n], k) for k, source in enumerate(sources)
            )
            chain = next((c for c in chains if good and c[-1] in before), None)
            if chain is not None:
                chain.append(n)
            else:
                chains.append([n])
        return chains

    def _right(self) -> bool:
        if not self.returned or any(rows is None for rows in self.positions):
            return False
        forward: dict[int, set[int]] = {}
        for chain in self.chains:
            if not all(s["zero"] or s["learned"] for s in self.calls[chain[0]]["states"]):
                return False
            if any(self.calls[n]["columns"] for n in chain):
                return False
            table = np.array([self.positions[n] for n in chain]) if self._even(chain) else None
            if table is None or len(table) != self.T or (table[:, :, 0] != table[0, :, 0]).any():
                return False
            times = table[:, :, 1]
            along = np.arange(self.T)[:, None]
            if (times == along).all():
                forward.setdefault(self.calls[chain[0]]["cell"], set()).update(table[0, :, 0].tolist())
            elif not (times == self.T - 1 - along).all():
                return False
        return any(pictures == set(range(self.B)) for pictures in forward.values())

    def _even(self, chain: list[int]) -> bool:
        return len({len(self.positions[n] or []) for n in chain}) == 1

    # --- what is wrong ----------------------------------------------------------------------------------------------

    def rows(self) -> list[Problem]:
        """Problems of the rows that the cell is given."""
        if self.right:
            return []
        problems = []
        for group in self.groups.values():
            lower = not any(self.upper[n] for n in group) and all(self.positions[n] is not None for n in group)
            if lower and not self._reads_backwards(group):
                problems += self._rows_of(group)
        return problems

    def _reads_backwards(self, group: list[int]) -> bool:
        """Whether a group is the second direction of two."""
        return len(self.groups) > 1 and [(self.positions[n] or [[0, 0]])[0][1] for n in group] == list(
            range(self.T - 1, -1, -1)
        )

    def _rows_of(self, group: list[int]) -> list[Problem]:
        call = self.calls[group[0]]
        line, text = call["line"], shown(call)
        if not self._even(group):
            return []
        table = np.array([self.positions[n] for n in group])  # calls, rows, (picture, row)
        N, R, _ = table.shape
        turned = next((e[2] for e in self.observed["events"] if e[1] in ("view", "reshape") and e[0] == 0), None)
        numbers = np.arange(N)[:, None] * R + np.arange(R)
        if R == self.B and (table[:, :, 0] != np.arange(self.B)).any():
            made = np.stack([numbers // self.T, numbers % self.T], -1)
            if N == self.T and (table == made).all():
                return [
                    fault(
                        "view-for-transpose",
                        turned or call["x_line"] or line,
                        "view/reshape to (28, B, 28) keeps the order of the numbers in memory, so that a step reads rows "
                        "of different times and pictures; each state then mixes pictures, and little can be learned.",
                        "x_t",
                    )
                ]
            return [
                fault(
                    "batch-mixed",
                    call["x_line"] or line,
                    f"{text}: the rows that the cell is given in one place of the batch belong to different pictures; "
                    "picture b must stay in place b at every step.",
                    "x_t",
                )
            ]
        if R == self.T and N == self.B and (table[:, :, 0] == np.arange(N)[:, None]).all():
            return [
                fault(
                    "steps-over-batch",
                    call["x_line"] or line,
                    f"{text}: a step reads all rows of one picture, and the loop goes over the pictures of the batch; "
                    "step t reads row t of every picture, x[:, t].",
                    "x_t",
                )
            ]
        if R not in (1, self.B) or (R == 1 and self.B > 1 and N < self.T - 1):
            return [
                fault(
                    "batch-mixed",
                    call["x_line"] or line,
                    f"{text}: the cell is given {R} rows at a step for a batch of {self.B} pictures.",
                    "x_t",
                )
            ]
        problems = []
        if R == 1:
            table = table[table[:, 0, 0] == 0]
        if all(self.calls[n]["columns"] for n in group):
            problems.append(
                fault(
                    "columns-for-rows",
                    call["x_line"] or line,
                    f"{text}: step t reads column t of the picture; the lab reads row t, x[:, t, :].",
                    "x_t",
                )
            )
        times = table[:, :, 1]
        if (times != times[:, :1]).any():
            return [*problems, self._order(line, text, "rows of different numbers at one step")]
        return [*problems, *self._order_of(times[:, 0].tolist(), line, text, group)]

    def _order_of(self, times: list[int], line: int | None, text: str, group: list[int]) -> list[Problem]:
        T = self.T
        passes = [times[k : k + T] for k in range(0, len(times), T)]
        forward, backward = list(range(T)), list(range(T - 1, -1, -1))
        starts = [self._begins(group[k]) for k in range(0, len(times), T)] if len(group) == len(times) else [True]
        if times == forward:
            return []
        if times == backward:
            return [
                fault(
                    "rows-reversed",
                    line,
                    f"{text}: the rows are read from the last to the first; the lab begins with the first.",
                    "x_t",
                )
            ]
        if forward in passes and all(one in (forward, backward) for one in passes) and all(starts):
            return []  # both directions, or stacked layers with the same weights
        if len(set(times)) == 1 and len(times) > 1:
            return [
                fault("same-row", line, f"{text}: every step reads row {times[0] + 1}; step t must read row t.", "x_t")
            ]
        missing = sorted(set(forward) - set(times))
        if missing and times == sorted(set(times)):
            return [
                fault(
                    "steps-missing",
                    line,
                    f"{text}: the cell is called for {len(times)} of {T} rows; {_numbers(missing)} not read.",
                    "x_t",
                )
            ]
        if not missing and len(times) > T:
            return [
                fault(
                    "steps-repeated",
                    line,
                    f"{text}: the cell is called {len(times)} times for {T} rows: each row must be read once.",
                    "x_t",
                )
            ]
        return [self._order(line, text, f"rows {', '.join(str(t + 1) for t in times[:5])}, …")]

    def _order(self, line: int | None, text: str, what: str) -> Problem:
        return fault("rows-order", line, f"{text}: the cell reads {what}; expected rows 1 to {self.T} in order.", "x_t")

    def _begins(self, n: int) -> bool:
        return all(state["zero"] or state["learned"] for state in self.calls[n]["states"])

    def start(self) -> list[Problem]:
        """Problems of the first state."""
        problems = []
        for chain_start in sorted(self._firsts()):
            call = self.calls[chain_start]
            slots = self.slots(call)
            for k, state in enumerate(call["states"]):
                about = f"{slots[k]}_0"
                line = state["line"] or call["line"]
                if state["zero"] or self._source(state) is not None:
                    continue
                if state["learned"]:
                    problems.append(
                        fault(
                            "start-learned",
                            line,
                            f"{about} is a parameter that is learned; the lab begins with zeros.",
                            about,
                        )
                    )
                elif self.observed["seeds"]["starts_differ"]:
                    problems.append(
                        fault(
                            "start-not-zero",
                            line,
                            f"{about} is random, another one at each call; the lab begins with zeros. "
                            "The same picture then has other logits each time.",
                            about,
                        )
                    )
                else:
                    problems.append(
                        fault("start-not-zero", line, f"{about} is not zero; the lab begins with zeros.", about)
                    )
        return problems

    def states(self) -> list[Problem]:
        """Problems of the states that are handed from step to step."""
        if self.right or not self.returned:
            return []
        problems = []
        for group in self.groups.values():
            problems += self._states_of(group)
        return problems

    def _states_of(self, group: list[int]) -> list[Problem]:
        pairs = list(pairwise(group))
        sizes = {len(self.positions[n] or []) for n in group}
        if sizes == {1} and self.B > 1:  # pictures one by one: only steps of the same picture follow each other
            pairs = [
                (m, n) for m, n in pairs if (self.positions[m] or [[0]])[0][0] == (self.positions[n] or [[1]])[0][0]
            ]
        passes = len(group) > self.T and len(group) % self.T == 0 and sizes == {self.B}
        if passes:
            pairs = [(m, n) for k, (m, n) in enumerate(pairs) if (k + 1) % self.T or not self._begins(n)]
        if not pairs:
            return []
        call = self.calls[pairs[0][1]]
        if any(len(self.calls[n]["states"]) != len(call["states"]) for _, n in pairs) or not call["states"]:
            return []
        kinds = [{self._kind(m, self.calls[n], k) for m, n in pairs} for k in range(len(call["states"]))]
        slots, line, text = self.slots(call), call["line"], shown(call)
        both = ["h_{t-1}", "c_{t-1}"][: max(call["outs"], len(slots))]
        if all(kind == {"right"} for kind in kinds):
            return []
        lost = [slots[k] for k, kind in enumerate(kinds) if kind == {"start"}]
        if lost:
            return (
                [_not_handed_on(letter_, line, text) for letter_ in lost]
                if len(lost) < len(slots)
                else [
                    fault(
                        "state-not-handed-on",
                        line,
                        f"{text}: every step begins with the first state again, not with {' and '.join(both)}. "
                        "The classifier then remembers nothing of the rows before.",
                        ", ".join(both),
                    )
                ]
            )
        if len(kinds) == 2 and all(kind == {"other"} for kind in kinds):
            return [
                fault(
                    "states-swapped",
                    line,
                    f"{text}: h_t of a step is handed on as c_{{t-1}} of the next, and c_t as h_{{t-1}}.",
                    "h_{t-1}, c_{t-1}",
                )
            ]
        for k, kind in enumerate(kinds):
            if kind == {"other"}:
                other = "c" if slots[k] == "h" else "h"
                return [
                    fault(
                        "states-swapped",
                        line,
                        f"{text}: {slots[k]}_{{t-1}} is given {other}_{{t-1}} of the step before.",
                        f"{slots[k]}_{{t-1}}",
                    )
                ]
            if kind <= {"older", "start"} and "older" in kind:
                return [
                    fault(
                        "state-older",
                        line,
                        f"{text}: {slots[k]}_{{t-1}} comes from an earlier step than the one before.",
                        f"{slots[k]}_{{t-1}}",
                    )
                ]
        if len(group) == self.T and all(kind <= {"right", "start"} for kind in kinds):
            anew = [
                k + 2
                for k, (m, n) in enumerate(pairs)
                if "start" in {self._kind(m, self.calls[n], j) for j in range(len(kinds))}
            ]
            return [
                fault(
                    "state-not-handed-on",
                    line,
                    f"{text}: the state begins anew within a picture (step {anew[0]}); only the first step begins with zeros.",
                    ", ".join(both),
                )
            ]
        return []

    def _kind(self, before: int, call: dict[str, Any], k: int) -> str:
        state = call["states"][k]
        source = self._source(state)
        if source is None:
            return "start" if state["zero"] or state["first"] or (state["learned"] and not state["uses"]) else "unknown"
        if self.calls[source[0]]["cell"] != call["cell"]:
            return "unknown"
        if source[0] != before:
            return "older" if source[0] < before else "unknown"
        return "right" if source[1] in self._wanted(call, k) else "other"

    def end(self) -> list[Problem]:
        """Problems of the state that the logits are made of."""
        observed, head = self.observed, self.observed["head"]
        uses = [(m, j) for m, j in head["uses"]]
        line = observed["logits_line"]
        if not self.plain or not (self.right or len(self.groups) == 1):
            return []
        if {len(rows or []) for rows in self.positions} != {self.B}:
            return []
        last, slots = len(self.calls) - 1, self.calls[-1]["outs"]
        if len(self.chains) > 1 and self.right:
            return []  # both directions: which of the states are read is the author's choice
        if not uses:
            depends = observed["depends"]
            if (
                not head["grad"]
                or depends is None
                or depends["value"]
                or not self.returned
                or head.get("outside", 0) == 0
            ):
                return []
            return [
                fault("cell-result-unused", line, "The logits do not depend on anything that the cell returned.", "h_T")
            ]
        steps = {m for m, _ in uses}
        outward = observed["semantic"][1]
        c_place = {1} if outward is None else {1, outward}
        if steps == {last}:
            places = {j for _, j in uses}
            if slots == 2 and places == {1} and c_place == {1}:
                return [
                    fault(
                        "c-for-h",
                        line,
                        "The logits are made of c_T, the cell state; the lab: logits = W_out h_T + b_out.",
                        "h_T",
                    )
                ]
            if slots == 2 and places == {0, 1}:
                return [
                    fault(
                        "c-beside-h",
                        line,
                        "The logits read c_T beside h_T; the lab: logits = W_out h_T + b_out.",
                        "h_T",
                    )
                ]
            return []
        if len(steps) == 1:
            (step,) = steps
            return [
                fault(
                    "not-last-step",
                    line,
                    f"The logits are made of the state after step {step + 1} of {last + 1}; the lab takes h_T.",
                    "h_T",
                )
            ]
        if head.get("W") is None and head.get("outside", 0) > 2:
            return [
                fault(
                    "head-extra",
                    line,
                    "The logits read the states of several steps through further parameters; the lab takes h_T alone.",
                    "h_T",
                )
            ]
        count = "all" if len(steps) > last else "several"
        return [
            fault(
                "all-steps",
                line,
                f"The logits are made of {count} steps' states{_how(observed)}; the lab takes h_T alone.",
                "h_T",
            )
        ]


def letter(name: str) -> str:
    """h or c, of the name of an argument such as ``prev_c`` or ``cell_state``; else an empty text."""
    parts = [
        part
        for part in name.lower().split("_")
        if part not in ("prev", "previous", "old", "last", "t", "in", "state", "1", "t1", "tm1")
    ]
    first = parts[0] if parts else ""
    return first[:1] if first[:1] in ("h", "c") and (len(first) <= 5 or first.startswith(("hidden", "cell"))) else ""


def shown(call: dict[str, Any]) -> str:
    """The call as the student wrote it."""
    return f"`{call['text']}`" if call["text"] else "The call of the cell"


def _numbers(missing: list[int]) -> str:
    if len(missing) == 1:
        return f"row {missing[0] + 1} is"
    return f"rows {', '.join(str(t + 1) for t in missing[:4])}{', …' if len(missing) > 4 else ''} are"


def _not_handed_on(which: str, line: int | None, text: str) -> Problem:
    known = which in ("h", "c")
    name = f"{which}_{{t-1}}" if known else "the state"
    return fault(
        f"{which}-not-handed-on" if known else "state-not-handed-on",
        line,
        f"{text}: {name} is the first one again at every step; it must be what the step before returned.",
        name,
    )


def _how(observed: dict[str, Any]) -> str:
    head = observed["head"]
    if head.get("W") is None or not head.get("mean"):
        return ""
    for how, factor in (("mean", 1.0), ("sum", float(head["steps"]))):
        made = factor * head["mean"][0] @ head["W"].T + head["b"]
        if made.shape == head["logits"].shape and np.allclose(made, head["logits"], rtol=1e-6, atol=1e-6):
            return f" (their {how})"
    return ""
