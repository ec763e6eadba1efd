"""The application: the only part that uses Hydra and OmegaConf.

main            the command line: finds the command and prints errors

commands/       a module for each command: `run` (a job), `list`, `check` (`examine` is its slow
                part), `score`, `sample`, `design`, `recommend`, `report`, `export`, `cite`,
                `cache`, `suite`; `words` parses the arguments of a command, `output` creates the
                file of `out=…`, `complaints` prints an error in one line
job/            one job: `build` makes its objects from a `basis` of law, path and seeds, with its
                `training`, its `denoisers` and the `scenes` of its pictures, `refusals` checks
                them, `run` trains and measures, `show` and `console` draw and print; `objects`
                makes objects for the library, `rebuild` builds the job of a stored run again,
                `racing` finds the samplers and grids of a race, `suite` reads the results of the
                suite, `verifying` builds the jobs of an entry again
folder/         the folder of a run: `runs` reads it, `claim` reserves it for a job and writes its
                status, `lock` allows one process at a time, `plan` lists the jobs of a multirun
config/         from yaml files to objects: `folders` finds the members of a group, `groups` the
                chosen members of a config, `construct` makes an object from a node, `compose`
                makes a config outside a job, `numbers` checks integers

terminal        standard output

In any of these modules bad input raises `InvalidSetting`, or an error of Hydra, before any work,
and `main` prints it in one line. So the docstrings here name only other errors.
"""
