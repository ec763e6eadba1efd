"""The application: the only part that knows Hydra and OmegaConf.

main        the command line; `complaints` makes its mistakes one line, `startup` starts and ends
            it fast, `words` reads what follows a command's name, `terminal` prints

job         one job: `build` makes its objects from the config, `refusals` and `numbers` say what
            cannot work, `showing` and `console` print, draw and log what comes of it
runs        its folder, read again; `owner` says whose it is, `plan` what a multirun is to do
construct   from a config's node to an object; `groups` holds the members that a job has chosen,
            `folders` where all members are, `compose` the config outside a job

list        `listing`, with `declared`, which reads samplers without importing them
check       `check` and `examine`
score       `score` and `scoring`
report      `report` and `reporting`
sample, export, cite, cache: a module each

objects     for the library
gallery     for `make gallery`
"""
