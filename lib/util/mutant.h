/* Known bugs that a build can be given on purpose, to prove that the checkers find them (tests/sim/mutants).
 *
 *     if (MUTANT(ACK_BEFORE_FSYNC)) ...
 *
 * is a constant 0 in every build but one made with -DMUTANT_ACK_BEFORE_FSYNC=1 (`make
 * MUTANT=ACK_BEFORE_FSYNC`), so that nothing of it is left in a program that is shipped. One mutant a build.
 * They stand in production code only; the checkers (audit, sim) include nothing of this. */
#ifndef UTIL_MUTANT_H
#define UTIL_MUTANT_H

#define MUTANT(name)                    MUTANT_IS_(MUTANT_##name)
#define MUTANT_IS_(value)               MUTANT_IS__(value)
#define MUTANT_IS__(value)              MUTANT_IS___(MUTANT_ONE_##value)
#define MUTANT_IS___(comma_or_no)       MUTANT_SECOND_(comma_or_no 1, 0)
#define MUTANT_SECOND_(ignored, v, ...) v
#define MUTANT_ONE_1                    0,

#endif
