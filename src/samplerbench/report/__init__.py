"""The report: one page, tables and figures of the results of runs. It does not import Hydra."""
