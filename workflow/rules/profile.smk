"""Stop if a profile, or a name in one or in an option, is not there: Snakemake would not say so."""

from contextlib import chdir

from colatent.jobs.profile import MAPPINGS, Known, Source, check_names


def file_of_profile(name):
    """Return the file of a workflow profile as Snakemake finds it, or None if none is asked for."""
    from snakemake.cli import get_profile_dir

    path = Path(name or "default")
    places = (path, Path("profiles", path), Path(workflow.basedir, "profiles", path))
    place = next((place for place in places if place.exists()), None)
    if name and place is None:
        known = Path(workflow.basedir, "workflow/profiles").glob("*/config.yaml")
        names = ", ".join(sorted(str(file.parent) for file in known))
        raise InputError(f"there is no workflow profile {name!r}; those here: {names}")
    return place and get_profile_dir(str(place))[1]


def profiles_of(arguments):
    """Return the file of each profile that these parsed arguments ask for, and whether workflows share it."""
    from snakemake.cli import get_profile_dir

    shared = [name for name in arguments.profile or () if name != "none"]
    files = [(get_profile_dir(name)[1], True) for name in shared]
    if arguments.workflow_profile != "none":
        if own := file_of_profile(arguments.workflow_profile):
            files.append((own, False))
    return files


def content_of_profile(file):
    """Return option -> value of a profile."""
    import yte

    with open(file) as stream:
        return yte.process_yaml(stream, require_use_yte=True)


def given_names(arguments):
    """Return what parsed arguments say of the executor, rules, groups and resources, as a profile would."""
    values = {
        option: getattr(arguments, option.replace("-", "_"))
        for option in ("executor", *sorted(MAPPINGS))
    }
    if arguments.batch:
        values["batch"] = {arguments.batch.rulename: arguments.batch}
    return {option: value for option, value in values.items() if value}


def refuse_mistyped_names(arguments):
    """Stop if these arguments of Snakemake, or profiles that they ask for, name what is not there."""
    from snakemake.cli import get_argument_parser

    # Snakemake's own parser: it knows abbreviated options, those of plugins, and environment variables
    parser = get_argument_parser()
    parsed = parser.parse_known_args(arguments)[0]
    try:
        # where Snakemake was started, and found them, before it went to --directory
        with chdir(workflow.rundir):
            sources = [
                Source(str(file), content_of_profile(file), shared)
                for file, shared in profiles_of(parsed)
            ]
        # this file, of a Snakefile that another one uses: names may be that one's
        if len(workflow.included_stack) > 2:
            return
        sources.append(Source("command line", given_names(parsed)))
        known = Known(
            options={
                key
                for action in parser._actions
                for key in parser.get_possible_config_keys(action)
            },
            rules=[rule.name for rule in workflow.rules],
            groups=[QUICK_FITS],
        )
        for doubt in check_names(sources, known):
            print(f"colatent: {doubt} (or is it another workflow's?)", file=sys.stderr)
    except InputError as error:
        sys.exit("\n".join(f"colatent: {line}" for line in str(error).splitlines()))


if is_main_run():
    refuse_mistyped_names(sys.argv[1:])
