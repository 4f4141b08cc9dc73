"""Measures: numbers and plots about predictions, a model, a run or a data set. All of them are `tikhon.NAME` too."""
