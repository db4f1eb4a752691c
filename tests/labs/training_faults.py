"""Small files as students write them, with one fault each."""

from __future__ import annotations

from tests.labs.training_files import LOOP, MODEL, PICTURES, STYLES, TESTING, swapped

FAULTS = {
    "softmax": (
        "softmax-before-loss",
        swapped(("criterion(outputs, labels)", "criterion(torch.softmax(outputs, 1), labels)")),
    ),
    "softmax in the model": (
        "softmax-before-loss",
        swapped(("return self.fc(h)", "return F.softmax(self.fc(h), dim=1)")),
    ),
    "sigmoid": (
        "sigmoid-before-loss",
        swapped(("criterion(outputs, labels)", "criterion(torch.sigmoid(outputs), labels)")),
    ),
    "nll": ("nll-on-logits", swapped(("nn.CrossEntropyLoss", "nn.NLLLoss"))),
    "nll of softmax": (
        "nll-on-softmax",
        swapped(
            ("nn.CrossEntropyLoss", "nn.NLLLoss"),
            ("criterion(outputs, labels)", "criterion(outputs.softmax(1), labels)"),
        ),
    ),
    "labels one off": (
        "labels-wrong",
        swapped(("criterion(outputs, labels)", "criterion(outputs, (labels + 1) % 10)")),
    ),
    "labels shuffled": (
        "labels-wrong",
        swapped(("criterion(outputs, labels)", "criterion(outputs, labels[torch.randperm(len(labels))])")),
    ),
    "no zero_grad": ("no-zero-grad", swapped(("        optimizer.zero_grad()\n", ""))),
    "zero_grad once an epoch": (
        "no-zero-grad",
        swapped(("        optimizer.zero_grad()\n", ""), ("    for step,", "    optimizer.zero_grad()\n    for step,")),
    ),
    "by hand without zeroing": ("no-zero-grad", STYLES["by hand"].replace("                p.grad = None\n", "")),
    "step behind the loop": (
        "step-once-an-epoch",
        swapped(("        optimizer.step()\n", "    optimizer.step()\n")),
    ),
    "step behind the loop, no zero_grad": (
        "step-once-an-epoch",
        swapped(("        optimizer.zero_grad()\n", ""), ("        optimizer.step()\n", "    optimizer.step()\n")),
    ),
    "step behind the loop of a function": (
        "step-once-an-epoch",
        STYLES["functions"]
        .replace("        optimizer.step()\n", "")
        .replace(
            "    return total / len(loader.dataset)", "    optimizer.step()\n    return total / len(loader.dataset)"
        ),
    ),
    "nan learning rate": (
        "parameters-nan",
        swapped(("optim.Adam(model.parameters(), lr=learning_rate)", "optim.SGD(model.parameters(), lr=float('nan'))")),
    ),
    "no backward": ("no-backward", swapped(("        loss.backward()\n", ""))),
    "no step": ("no-step", swapped(("        optimizer.step()\n", ""))),
    "zero_grad after backward": (
        "step-without-gradients",
        swapped(
            (
                "        optimizer.zero_grad()\n        loss.backward()\n",
                "        loss.backward()\n        optimizer.zero_grad()\n",
            )
        ),
    ),
    "step before backward": (
        "step-without-gradients",
        swapped(
            (
                "        loss.backward()\n        optimizer.step()\n",
                "        optimizer.step()\n        loss.backward()\n",
            )
        ),
    ),
    "optimizer of another model": (
        "other-model",
        swapped(("\nfor epoch", "\nmodel = ManualLSTMClassifier(input_size, hidden_size, num_classes)\nfor epoch")),
    ),
    "parameters missing": ("parameters-missing", swapped(("Adam(model.parameters()", "Adam(model.fc.parameters()"))),
    "written back": (
        "parameters-unchanged",
        swapped(
            ("\nfor epoch", "\nimport copy\nfirst = copy.deepcopy(model.state_dict())\nfor epoch"),
            ("        optimizer.step()\n", "        optimizer.step()\n        model.load_state_dict(first)\n"),
        ),
    ),
    "model made again": (
        "model-made-again",
        swapped(
            ("num_epochs):\n", "num_epochs):\n    " + MODEL.splitlines()[0] + "\n    " + MODEL.splitlines()[2] + "\n"),
        ),
    ),
    "detached": (
        "loss-detached",
        swapped(("loss.backward()", "loss = loss.detach().requires_grad_(); loss.backward()")),
    ),
    "no_grad in training": (
        "loss-detached",
        swapped(
            (
                "        outputs = model(images)\n        loss",
                "        with torch.no_grad():\n            outputs = model(images)\n        loss",
            )
        ),
    ),
    "trained on test images": ("trained-on-test", swapped(("enumerate(train_loader)", "enumerate(test_loader)"))),
    "never trained": ("no-training", swapped((LOOP, ""))),
    "one batch": ("one-batch", swapped(("        optimizer.step()\n", "        optimizer.step()\n        break\n"))),
    "returns after a batch": (
        "one-batch",
        STYLES["functions"].replace(
            "        total += loss.item() * len(x)\n    return", "        total += loss.item() * len(x)\n        return"
        ),
    ),
    "learning rate 0": ("learning-rate-zero", swapped(("lr=learning_rate", "lr=0"))),
    "tested on training images": (
        "tested-on-training",
        swapped(("images, labels in test_loader", "images, labels in train_loader")),
    ),
    "test ends early": (
        "part-of-test",
        swapped(
            (
                "        correct += (predicted == labels).sum().item()\n",
                "        correct += (predicted == labels).sum().item()\n        break\n",
            )
        ),
    ),
    "test ends early, not printed": (
        "part-of-test",
        swapped(
            ("DataLoader(test_dataset, batch_size=batch_size", "DataLoader(test_dataset, batch_size=64"),
            (
                "        correct += (predicted == labels).sum().item()\n",
                "        correct += (predicted == labels).sum().item()\n        if total > 100: break\n",
            ),
            ("print(f'Test Accuracy: {100 * correct / total:.2f}%')\n", ""),
        ),
    ),
    "drop_last": (
        "part-of-test",
        swapped(
            ("DataLoader(test_dataset, batch_size=batch_size", "DataLoader(test_dataset, batch_size=64, drop_last=True")
        ),
    ),
    "batches counted": ("counts-batches", swapped(("100 * correct / total", "correct / len(test_loader)"))),
    "unequal batches": (
        "mean-of-batches",
        swapped(
            ("DataLoader(test_dataset, batch_size=batch_size", "DataLoader(test_dataset, batch_size=64"),
            ("correct += (predicted == labels).sum().item()", "correct += (predicted == labels).float().mean().item()"),
            ("100 * correct / total", "100 * correct / len(test_loader)"),
        ),
    ),
    "last batch": (
        "last-batch-only",
        swapped(("total += labels.size(0)", "total = labels.size(0)"), ("correct += (pred", "correct = (pred")),
    ),
    "training set's size": (
        "wrong-denominator",
        swapped(("100 * correct / total", "100 * correct / len(train_dataset)")),
    ),
    "hard-coded": (
        "accuracy-hard-coded",
        swapped(("f'Test Accuracy: {100 * correct / total:.2f}%'", "'Test Accuracy: 98.14%'")),
    ),
    "hard-coded in a name": (
        "accuracy-hard-coded",
        swapped(
            ("print(f'Test Accuracy: {100 * correct / total:.2f}%')", "acc = 98.14\nprint(f'Test Accuracy: {acc}%')")
        ),
    ),
    "hard-coded, no test": ("accuracy-hard-coded", swapped((TESTING, "print('Test Accuracy: 98.14%')\n"))),
    "tested before training": (
        "tested-before-training",
        swapped((LOOP + TESTING, TESTING + "model.train()\n" + LOOP)),
    ),
    "untrained": ("tests-untrained", swapped((TESTING, "model = type(model)(28, hidden_size, 10)\n" + TESTING))),
    "untrained and frozen": (
        "tests-untrained",
        swapped((TESTING, "model = type(model)(28, hidden_size, 10).requires_grad_(False)\n" + TESTING)),
    ),
    "not printed": ("accuracy-not-printed", swapped(("print(f'Test Accuracy: {100 * correct / total:.2f}%')\n", ""))),
    "made better": (
        "accuracy-differs",
        swapped(("100 * correct / total:.2f", "min(100, 100 * correct / total + 37.3):.2f")),
    ),
    "no test": ("no-testing", swapped((TESTING, ""))),
    "wrong axis": (
        "argmax-axis",
        swapped(
            ("torch.max(outputs, 1)", "torch.max(outputs, 0)"),
            ("correct += (predicted == labels)", "correct += (predicted[:len(labels)] == labels[:len(predicted)])"),
        ),
    ),
    "wrong axis stops": ("argmax-axis", swapped(("torch.max(outputs, 1)", "torch.max(outputs, 0)"))),
    "dropout": (
        "dropout-in-test",
        swapped(
            ("return self.fc(h)", "return self.fc(self.drop(h))"),
            ("        self.hidden_size = h", "        self.drop = nn.Dropout(0.5)\n        self.hidden_size = h"),
            ("model.eval()\n", ""),
        ),
    ),
    "few pictures": ("few-pictures", swapped(("range(10):\n    plt", "range(6):\n    plt"))),
    "no prediction": ("prediction-missing", swapped((", Pred: {predicted[k]}", ""))),
    "no label": ("label-missing", swapped(("True: {labels[k]}, ", ""))),
    "training images": ("pictures-of-training", swapped(("next(iter(test_loader))", "next(iter(train_loader))"))),
    "others' predictions": (
        "prediction-of-another",
        swapped(("Pred: {predicted[k]}", "Pred: {(predicted[k] + 3) % 10}")),
    ),
    "predictions of another draw": (
        "prediction-of-another",
        swapped(
            (
                "images, labels = next(iter(test_loader))\nwith",
                "shown = DataLoader(test_dataset, batch_size=10, shuffle=True)\n"
                "images, labels = next(iter(shown))\nwith",
            ),
            ("predicted = model(images.reshape", "predicted = model(next(iter(shown))[0].reshape"),
        ),
    ),
    "no pictures": ("no-pictures", swapped((PICTURES, ""))),
}
