"""python -m ppl_vae.cli"""

from . import main

main()
