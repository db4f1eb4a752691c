"""The kinds of problems that the check of the in-class script knows."""

from __future__ import annotations

from unroll.labs.problems import Code

CODES: dict[str, Code] = {
    # item 1: the parameters
    "rnn-missing": Code(
        "A parameter of the lab is missing.",
        ("Count the letters of the two equations.", "There are five: three in s_t, two in the logits."),
    ),
    "rnn-shape": Code(
        "A parameter has a shape that its equation does not allow.",
        ("Write the shape of each factor under the equation.", "s_t has n rows, x_t has m, the logits have two."),
    ),
    "rnn-no-requires-grad": Code(
        "A parameter does not ask for a gradient.",
        ("Which tensors does backward() compute gradients for?", "Print requires_grad of each of the five."),
    ),
    "rnn-no-leaf": Code(
        "A parameter is the result of a calculation, so that its .grad stays None.",
        (
            "Print is_leaf of each parameter.",
            "requires_grad has to be asked for after the last calculation, not before.",
        ),
    ),
    "rnn-zeros": Code(
        "The first weights are such that hardly any gradient is other than zero.",
        ("Work out the gradients of the first sentence by hand.", "What is s_t where U and W are zero?"),
    ),
    "rnn-not-finite": Code(
        "A parameter holds NaN or infinite values.",
        ("Print the parameters before training.", "What does torch.empty hold?"),
    ),
    # item 2: the forward
    "rnn-no-w": Code(
        "s_t does not depend on s_{t-1}.",
        ("How does the network know at word four what word three was?", "Which variable holds s_{t-1} at step t?"),
    ),
    "rnn-no-u": Code("s_t does not depend on x_t.", ("Where does the word come in?", "Look for the product with x_t.")),
    "rnn-no-b": Code(
        "s_t has no bias b.", ("Compare s_t with the lab's, term by term.", "Count the terms inside of φ.")
    ),
    "rnn-sign": Code("A term is subtracted.", ("Compare the signs with the lab's.", "All terms are added.")),
    "rnn-w-turned": Code(
        "W is transposed, and U is not.",
        ("Which index of W belongs to s_{t-1}?", "Compare the products with W and with U."),
    ),
    "rnn-w-mixed": Code(
        "W and W_out change places.", ("Which weights stand where?", "Read each product's letters aloud.")
    ),
    "rnn-no-activation": Code(
        "s_t has no φ.", ("What makes the network more than one linear map?", "Where is φ of the equation?")
    ),
    "rnn-activation-place": Code("b is added outside of φ.", ("Look at the brackets.", "What does φ stand around?")),
    "rnn-activation": Code("φ is another function than tanh.", ("Which function is φ in the lab's notes?",)),
    "rnn-state-kept": Code(
        "A sentence begins with the last state of the one before.",
        ("What is s_0 of the second sentence?", "Where is s set to zeros: once, or for every sentence?"),
    ),
    "rnn-start": Code("s_0 is not zeros.", ("What is known before the first word?",)),
    "rnn-words": Code(
        "The words that are read are not those of the sentences, in their order.",
        ("Print each word as it is read.", "How many are there, and in which order?"),
    ),
    "rnn-onehot": Code(
        "The vectors of the words are not one-hot by the vocabulary.",
        ("Print the vector of each word.", "Where is its 1, and where should it be?"),
    ),
    "rnn-same-sentence": Code(
        "The same sentence is read each time.",
        ("Print the sentence in the loop.", "What does the inner loop run over?"),
    ),
    "rnn-read": Code(
        "The output is computed from another state than the last.",
        ("Which state has seen the whole sentence?", "Which s do the logits use?"),
    ),
    "rnn-no-b-out": Code("The logits have no b_out.", ("Compare the logits with the lab's, term by term.",)),
    "rnn-b-for-b-out": Code("b stands in the logits in place of b_out.", ("Which bias belongs to the output?",)),
    "rnn-softmax": Code(
        "The logits pass a function before the loss, which expects them as they are.",
        ("What does CrossEntropyLoss do with its input?", "Read its page: does it expect probabilities?"),
    ),
    "rnn-loss": Code("The loss is not the cross-entropy of the logits.", ("Which loss does the lab name?",)),
    "rnn-loss-of-state": Code(
        "The loss is computed from the state, not from the logits.",
        ("What is handed to the loss?", "Which parameters does the loss not depend on?"),
    ),
    "rnn-label": Code("The loss compares with another label.", ("Print the target beside the sentence.",)),
    "rnn-detached": Code(
        "Gradients stop at s_{t-1}.",
        ("Which words can W and U learn from?", "What do detach() and .item() do to a graph?"),
    ),
    "rnn-shapes": Code(
        "Shapes do not fit together.", ("Print the shapes on that line.", "Columns or rows: the same everywhere.")
    ),
    "rnn-graph-twice": Code(
        "backward() is called through a part of the graph that is gone already.",
        ("What of this sentence's loss was computed before the last backward()?",),
    ),
    "rnn-forbidden": Code(
        "A module does what the lab wants written by hand.",
        ("Which modules does the lab not allow?", "Write the step yourself."),
    ),
    "rnn-differs": Code(
        "The loss or a gradient differs from the lab's in a way that is not known.",
        (
            "Put the witness's values into the script.",
            "Print s_1 to s_4, the logits and the loss, and find the first that differs.",
        ),
    ),
    "rnn-unread": Code(
        "The check could not see what this part computes.", ("Write it closer to the lab's equations.",)
    ),
    # item 3: the update
    "rnn-not-updated": Code(
        "A parameter is not updated.", ("Print each parameter before and after.", "Count the updates.")
    ),
    "rnn-ascent": Code("A parameter goes up its gradient.", ("Does the loss fall?", "Which sign has a step downhill?")),
    "rnn-not-zeroed": Code(
        "A gradient is not zeroed, so that old ones are added to it.",
        ("Print a .grad before backward().", "What does backward() do to a .grad that is there?"),
    ),
    "rnn-gradient-lost": Code(
        "A gradient is zeroed before it was used.", ("Which backward() does each update follow?",)
    ),
    "rnn-wrong-gradient": Code(
        "A parameter is updated with another one's gradient.",
        ("Read each line of the update aloud, letter by letter.",),
    ),
    "rnn-no-rate": Code("An update leaves the learning rate out.", ("By how much does each parameter move?",)),
    "rnn-outside-no-grad": Code(
        "A parameter is changed where its changes are recorded, which PyTorch refuses.",
        ("Is the update itself a part of the computation of the loss?", "Which context does the lab name for it?"),
    ),
    "rnn-reassigned": Code(
        "The update makes a new tensor, which is no parameter any more.",
        (
            "Print requires_grad of the parameter after the update.",
            "Change it in place, or ask for its gradient again.",
        ),
    ),
    "rnn-no-backward": Code(
        "backward() is never called.", ("Where do the gradients come from?", "Which call fills each .grad?")
    ),
    "rnn-update-first": Code(
        "The update stands before the backward() whose gradients it needs.",
        ("In which order do the gradients come to be?",),
    ),
    "rnn-zeroed-first": Code(
        "A gradient is zeroed before the first backward() has made it.",
        ("What is a .grad before the first backward()?", "In which order do backward(), update and zeroing stand?"),
    ),
    "rnn-optimizer": Code("An optimizer does the update.", ("What does one step of it compute? Write that.",)),
    "rnn-update-differs": Code(
        "A parameter moves otherwise than by the learning rate times its gradient.",
        ("Repeat one update by hand with the witness's numbers.",),
    ),
    "rnn-nan": Code(
        "The parameters become nan in training.",
        (
            "Print the parameters and the learning rate after the first updates.",
            "Which update is the first that goes wrong?",
        ),
    ),
    # item 4: the predictions
    "rnn-no-prediction": Code("No predictions are printed.", ("What does the lab want to see under Testing?",)),
    "rnn-prediction": Code(
        "A printed prediction is not the sentence's label.",
        ("Print the logits beside it.", "Which of them is the largest?"),
    ),
    "rnn-argmin": Code(
        "The prediction is not the class with the largest logit.", ("What does argmax give, and of what?",)
    ),
    "rnn-prediction-hard-coded": Code(
        "A printed prediction does not come from the network.",
        ("Where does the number that is printed come from?", "Would it change if the network had learned nothing?"),
    ),
    "rnn-printed-loss": Code("The printed losses are not those of the run.", ("Which variable is printed?",)),
    "rnn-not-reached": Code("The script ends before this part.", ("Mend what stops it, and run it again.",)),
    # remarks
    "rnn-epoch-update": Code("One update an epoch, from both sentences.", ()),
    "rnn-not-plain": Code("The update adds momentum, weight decay or the like.", ()),
    "rnn-rates": Code("Parameters have learning rates of their own.", ()),
    "rnn-zero-weights": Code("A weight matrix begins with zeros, or its rows with equal values.", ()),
    "rnn-rows-turned": Code("W is transposed beside the lab's.", ()),
    "rnn-epochs": Code("Not 300 epochs.", ()),
    "rnn-no-history": Code("No loss_history.", ()),
    "rnn-no-plot": Code("No plot of the loss.", ()),
    "rnn-no-losses": Code("The losses of every 50th epoch are not printed.", ()),
    "rnn-prediction-follows": Code("Wrong predictions that follow from another problem.", ()),
}

REMARKS = frozenset(
    """rnn-activation rnn-start rnn-epoch-update rnn-not-plain rnn-rates rnn-zero-weights rnn-rows-turned rnn-epochs
    rnn-no-history rnn-no-plot rnn-no-losses rnn-prediction-follows rnn-unread""".split()  # noqa: SIM905
)
"""Codes of what is said without being a fault."""
