package seed

import "testing"

func TestSeedIsTakenBack(t *testing.T) {
	t.Setenv(Variable, "0x2a")
	a, b := Of(t), Of(t)
	if a.seed != 42 {
		t.Errorf("the seed is %d", a.seed)
	}
	first, again := a.Rand(), b.Rand()
	for range 10 {
		if x, y := first.Uint64(), again.Uint64(); x != y {
			t.Fatalf("the same seed yields %d and %d", x, y)
		}
	}
	if a.Rand().Uint64() == b.Rand().Uint64() && a.Rand().Uint64() == first.Uint64() {
		t.Error("two streams are the same")
	}
}

func TestSeedsDiffer(t *testing.T) {
	t.Setenv(Variable, "")
	if a, b := Of(t), Of(t); a.seed == b.seed {
		t.Errorf("two seeds are %d", a.seed)
	}
}
