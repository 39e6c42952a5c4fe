"""What the field says of collapse, each claim as an experiment of one command.

One file a study. `noneg study bare-siamese` is the module `noneg.studies.bare_siamese`, whose
`STUDY` holds a grid of configurations over `noneg.train`, claims that judge the results, and a
figure.
"""
