"""Strengths and rates that are found rather than given: while training goes on, or by searches over whole trainings."""
