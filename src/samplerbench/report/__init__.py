"""The report: what runs left behind, as one page, tables and figures. Hydra is not known here."""
