// One line for each check, as every script of this folder prints it.

let failed = false;

/** Runs a check; what it returns (how much it looked at) stands behind its name. */
export async function check(name, run) {
  try {
    console.log(`ok    ${name}: ${await run()}`);
  } catch (error) {
    failed = true;
    console.error(error);
    console.log(`FAIL  ${name}: ${error.message}`);
  }
}

/** That `run` fails with that class of error: a check that accepts everything shows nothing. */
export function refused(what, run, Refusal) {
  try {
    run();
  } catch (error) {
    if (error instanceof Refusal) return;
    throw error;
  }
  throw new Error(`accepted: ${what}`);
}

export function must(holds, what) {
  if (!holds) throw new Error(what);
}

export function finish() {
  process.exitCode = failed ? 1 : 0;
}
