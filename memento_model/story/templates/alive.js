(() => {
  const time = document.getElementById("updated"), told = document.getElementById("alive");
  const last = new Date(time.dateTime), shot = Number(told.dataset.shot), patience = Number(told.dataset.patience);
  const clock = (when) => when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  const minutes = (seconds) => {
    const whole = Math.floor(seconds / 60), hours = Math.floor(whole / 60), days = Math.floor(hours / 24);
    if (days > 1) return `${days} days`;
    if (hours > 1) return `${hours} hours`;
    return whole === 1 ? "a minute" : `${whole} minutes`;
  };
  const plain = told.textContent;
  time.textContent = `${last.toDateString() === new Date().toDateString() ? "" : `${last.toLocaleDateString()} `}${clock(last)}`;
  const look = () => {
    const idle = (Date.now() - last) / 1000, late = idle > patience;
    told.classList.toggle("warning", late);
    document.getElementById("work").textContent = late ? "perhaps no longer in work" : "in work";
    if (!late) {
      told.textContent = plain;
    } else {
      const why = shot ? "The run has most likely ended" : "If the command is no longer at work, the run has ended";
      told.textContent = `Nothing has changed for ${minutes(idle)}${told.dataset.takes}. ${why}: run the same command again to go on; finished shots are kept.`;
    }
  };
  look();
  setInterval(look, 2000);
})();
