"""The application: the only part that knows Hydra and OmegaConf.

main            the command line: finds the command and prints its mistakes

commands/       a module for each command: `run` (a job), `list`, `check` (`examine` is its slow
                part), `score`, `sample`, `report`, `export`, `cite`, `cache`; `words`
                reads what is typed after a command's name, `output` makes the file of `out=…`,
                `complaints` prints a mistake in one line
job/            one job: `build` makes its objects, `refusals` checks them, `run` trains and
                measures, `show` and `console` draw and print; `objects` serves the library,
                `rebuild` builds the job of a stored run again
folder/         the folder of a run: `runs` reads it, `claim` takes it for a job and writes its
                status, `lock` allows one process at a time, `plan` lists the jobs of a multirun
config/         from yaml files to objects: `folders` finds the members of a group, `groups` those
                that a config has chosen, `construct` makes an object of a node, `compose` makes a
                config outside a job, `numbers` checks whole numbers

terminal        standard output
"""
