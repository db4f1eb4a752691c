"""The codes of a cell's problems, with titles and hints."""

from __future__ import annotations

from unroll.labs.problems import Code

_GATE = "Write the gate's line beside the lab's equation, symbol by symbol."
_C = "Write down what your line for c_t says, and the lab's c_t = f ⊙ c_{t-1} + i ⊙ c̃ under it."
_H = "Write down what your line for h_t says, and the lab's h_t = o ⊙ tanh(c_t) under it."
_WEIGHTS = "Follow each weight from __init__ to the line that uses it: each should be used once."

CODES: dict[str, Code] = {
    "no-cell": Code("no class could be taken as the cell", ("The lab's class is called ManualLSTMCell.",)),
    "unfinished": Code("the cell is not finished", ("Which of the lab's equations is not written yet?",)),
    "exception": Code(
        "the cell raises an exception", ("Read the last line of the message.", "Print the shapes before that line.")
    ),
    "sizes": Code("what the cell returns has another shape than its states", ("Print h_t.shape and h_prev.shape.",)),
    "returns": Code("the cell does not return the lab's states", ("What does the next step need?",)),
    "unread": Code("the cell could not be checked", ("Give forward the lab's arguments.",)),
    "differs": Code("the cell is not the lab's, and what differs could not be told", (_GATE, _C, _H)),
    "forbidden": Code("a recurrent module of torch's computes the step", ("Which modules does the lab not allow?",)),
    "leak": Code(
        "the cell keeps a state of its own", ("What is left in self after a call?", "Which states does forward get?")
    ),
    "random": Code("the step draws random numbers, or new weights", ("Which call gives another number each time?",)),
    "mixed": Code("images of a batch are mixed", ("Which axis is the batch?", "Look at every dim= of the step.")),
    "detached": Code("gradients are cut off within the step", ("Which calls take a tensor out of the graph?",)),
    "backward": Code("no gradient can be computed through the step", ("Which lines change a tensor in place?",)),
    "no-parameter": Code("a weight is no parameter", ("Print [n for n, _ in cell.named_parameters()].",)),
    "order": Code("c_t is returned before h_t", ("In which order does the lab return them?",)),
    "activation": Code(
        "a gate or the candidate has another activation",
        (_GATE, "Between which values may this quantity lie, and which function keeps it there?"),
    ),
    "no-activation": Code(
        "a gate or the candidate has no activation",
        (_GATE, "Between which values may this quantity lie, and which function keeps it there?"),
    ),
    "c-activation": Code("c_t or c_{t-1} goes through an activation", (_C,)),
    "h-activation": Code("h_t has another activation, or has it in another place", (_H,)),
    "h-no-tanh": Code("h_t is made of c_t without tanh", (_H,)),
    "c-unchanged": Code("c_t is c_{t-1}", (_C,)),
    "no-forget-term": Code("c_t does not depend on c_{t-1}", (_C, "What happens to c_{t-1}?")),
    "no-forget-gate": Code("c_{t-1} is taken without the forget gate", (_C,)),
    "no-input-term": Code("nothing is added to the forget term", (_C,)),
    "no-input-gate": Code("the candidate is added without the input gate", (_C,)),
    "no-candidate": Code("a gate is added without a candidate", (_C,)),
    "minus": Code("a minus stands for a plus", (_C, _H)),
    "plus": Code("a sum stands for a product", (_C, _H)),
    "added": Code("c_t or h_t has one more term than the lab's", (_C, _H)),
    "partner": Code("a gate multiplies what another should", (_C, "Which gate belongs to which term?")),
    "h-from-old-c": Code("h_t is made of c_{t-1}", (_H, "Which c is the new one?")),
    "h-without-c": Code("h_t does not depend on the cell state", (_H,)),
    "no-output-gate": Code("h_t has no output gate", (_H,)),
    "shared-weights": Code("a gate has the weights of another", (_WEIGHTS,)),
    "shared-bias": Code("a gate has the bias of another", (_WEIGHTS,)),
    "no-bias": Code("a gate has no bias, and others have one", (_WEIGHTS,)),
    "no-h": Code("a gate does not depend on h_{t-1}", (_GATE, "What are the inputs of a gate?")),
    "no-x": Code("a gate does not depend on x_t", (_GATE, "What are the inputs of a gate?")),
    "c-in-gates": Code("a gate is computed from c_{t-1} in place of h_{t-1}", (_GATE,)),
    "elementwise": Code("a product by element stands for a matrix product", (_GATE,)),
    "peephole": Code("a gate has c as an input too", (_GATE,)),
    "coupled": Code("forget and input gate are one", (_WEIGHTS,)),
    "remark-names": Code(
        "i and f have each other's names; the model is the same", ("Compare the letters with the lab's.",)
    ),
    "remark-no-module": Code(
        "the cell is no nn.Module; its values are right all the same", ("Which class does the lab name?",)
    ),
    "remark-unused": Code("a parameter is never used; the step is right all the same", (_WEIGHTS,)),
}

REMARKS = frozenset({"unfinished", "remark-names", "remark-no-module", "remark-unused"})
"""What is said without it being a fault."""
