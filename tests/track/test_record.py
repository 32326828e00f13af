from harness.track import record


def test_a_run_is_named_by_what_tells_it_apart(make):
    assert record.run_name(make.run_json(seed=3)) == "mnist/theano/bnn-det/3"


def test_a_label_follows_the_recipe_and_tells_runs_apart(make):
    plain, labelled = make.run_json(), make.run_json(label="no-clip")
    assert record.run_name(labelled) == "mnist/theano+no-clip/bnn-det/0"
    assert record.tags(labelled)["label"] == "no-clip"
    assert "label" not in record.tags(make.run_json(label=""))
    assert record.fingerprint(labelled) != record.fingerprint(plain)
    assert record.fingerprint(make.run_json(label="")) == record.fingerprint(plain)


def test_fingerprint_changes_with_recipe_start_and_seed_only(make):
    run = make.run_json()
    same = make.ended(run)
    others = [
        make.run_json(seed=1),
        make.run_json(started="2026-01-02T03:04:06+00:00"),
        make.run_json(resolved={"epochs": 4}),
        make.run_json(preset="cpu"),
    ]
    assert record.fingerprint(same) == record.fingerprint(run)
    assert len({record.fingerprint(one) for one in [run, *others]}) == 5


def test_nested_settings_become_dotted_parameters(make):
    params = record.parameters(make.run_json())
    assert params["network.kind"] == "mlp"
    assert params["network.hidden"] == "[8, 8]"
    assert params["parameters.binary_weights"] == "100"
    assert params["device"] == "cpu"


def test_tags_leave_out_what_is_unknown(make):
    tags = record.tags(make.run_json(provenance={}))
    assert "commit" not in tags
    assert tags["seed"] == "0"


def test_numbers_drop_null_nan_and_infinity():
    row = {"train_loss": float("nan"), "valid_loss": None, "lr": 1, "seconds": float("inf")}
    assert record.numbers(row, record.EPOCH_METRICS) == {"lr": 1.0}


def test_epoch_times_add_up_from_the_start(make):
    times = record.epoch_times(make.run_json(), make.epochs(2))
    start = record.milliseconds("2026-01-02T03:04:05+00:00")
    assert times == [start + 2000, start + 4000]
