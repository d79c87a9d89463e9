from rasr.training.setup import changed_keys


def test_what_does_not_change_the_samples_may_change_on_resume():
    before = {"data": {"num_workers": 4, "skipped": "a/skipped.csv", "hflip": True}, "seed": 0}
    moved = {"data": {"num_workers": 8, "skipped": "b/skipped.csv", "hflip": True}, "seed": 0}
    assert changed_keys(before, moved) == []
    moved["data"]["hflip"] = False
    assert changed_keys(before, moved) == ["data.hflip: True -> False"]
